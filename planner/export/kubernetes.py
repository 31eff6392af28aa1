"""Objects for Kubernetes (1.28 or later): an indexed Job with a pod per node, a headless Service by
which the pods find the first one, a ConfigMap with the plan, and a claim for the results.

The pods of an indexed Job are called NAME-0, NAME-1, ...; under the Service's subdomain
NAME-0.NAME resolves to the first. /dev/shm is memory, which NCCL and gloo want more of than
a container has.
"""

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from planner.export.job import CONFIG_MAP_BYTES, PORT, TRAINING, Job
from planner.spec.documents import InputError

IMAGE = "meshwright:latest"
"""Assumed: an image with meshwright and torch; name yours in job.yaml."""

STORAGE = "100Gi"
"""Assumed: enough for checkpoints of small models; set it in job.yaml."""


def files(job: Job) -> dict[str, str]:
    """job.yaml, which holds the plan too. Raises InputError where the plan is too large."""
    if (size := len(job.plan_json.encode())) > CONFIG_MAP_BYTES:
        raise InputError(
            f"the plan is {size} bytes, a ConfigMap holds {CONFIG_MAP_BYTES}; export it for slurm "
            f"or torchrun"
        )
    stream = io.StringIO()
    yaml = YAML()
    yaml.width = 100
    yaml.explicit_start = True
    stream.write(f"# {job.title}\n# kubectl apply -f job.yaml\n")
    yaml.dump_all([_service(job), _config(job), _claim(job), _job(job)], stream)
    return {"job.yaml": stream.getvalue()}


def _metadata(job: Job) -> dict[str, Any]:
    return {"name": job.name, "labels": {"app": job.name}}


def _service(job: Job) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(job),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"app": job.name},
            "ports": [{"name": "rendezvous", "port": PORT}],
        },
    }


def _config(job: Job) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(job),
        "data": {"plan.json": LiteralScalarString(job.plan_json)},
    }


def _claim(job: Job) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(job),
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": STORAGE}},
        },
    }


def _job(job: Job) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(job),
        "spec": {
            "completionMode": "Indexed",
            "completions": job.nodes,
            "parallelism": job.nodes,
            "backoffLimit": 3 * job.nodes,
            "template": {"metadata": {"labels": {"app": job.name}}, "spec": _pod(job)},
        },
    }


def _pod(job: Job) -> dict[str, Any]:
    return {
        "restartPolicy": "Never",
        "subdomain": job.name,
        "containers": [_container(job)],
        "volumes": [
            {"name": "plan", "configMap": {"name": job.name}},
            {"name": "results", "persistentVolumeClaim": {"claimName": job.name}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
        ],
    }


def _container(job: Job) -> dict[str, Any]:
    kind = "nvidia.com/gpu" if job.gpus else "cpu"
    endpoint = f"{job.name}-0.{job.name}:{PORT}"
    training = ["/plan/plan.json", *TRAINING, "--output=/results/train"]
    return {
        "name": "ranks",
        "image": IMAGE,
        "command": [*job.torchrun(endpoint, job.name), *training],
        "ports": [{"containerPort": PORT}],
        "resources": {"limits": {kind: job.ranks_per_node}},
        "volumeMounts": [
            {"name": "plan", "mountPath": "/plan"},
            {"name": "results", "mountPath": "/results"},
            {"name": "memory", "mountPath": "/dev/shm"},
        ],
    }
