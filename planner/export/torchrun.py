"""A script for torchrun: run it on every node of the job."""

from planner.export.job import TRAINING, Job


def files(job: Job) -> dict[str, str]:
    """launch.sh and the plan."""
    return {"launch.sh": _script(job), "plan.json": job.plan_json}


def _script(job: Job) -> str:
    command = " \\\n  ".join(job.torchrun('"$HEAD:$PORT"', "${JOB_ID:-" + job.name + "}"))
    training = " ".join(TRAINING)
    return f"""\
#!/usr/bin/env bash
# {job.title}
# On {_nodes(job)}: HEAD=name-of-one-of-them bash launch.sh [options of the training]
# OUTPUT is the folder for results and checkpoints; all nodes must see it.
set -euo pipefail
cd "$(dirname "$0")"
HEAD="${{HEAD:-localhost}}"
PORT="${{PORT:-29400}}"
OUTPUT="${{OUTPUT:-runs/train}}"
exec {command} \\
  plan.json {training} --output "$OUTPUT" "$@"
"""


def _nodes(job: Job) -> str:
    return "the machine" if job.nodes == 1 else f"each of {job.nodes} machines, at about one time"
