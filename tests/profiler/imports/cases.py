"""The samples beside these tests, how each is imported, and what is kept of the result."""

import json
from pathlib import Path
from typing import Any

from profiler.imports import formats
from profiler.imports.outcome import Outcome, Wanted

SAMPLES = Path(__file__).parent.parent / "samples"
GOLDEN = Path(__file__).parent / "goldens.json"

CASES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "nccl-tests text": (["all_reduce-16xH100.txt"], {}),
    "nccl-tests two runs, tagged by mpirun": (["two-runs-tagged.txt"], {}),
    "nccl-tests split, new columns": (["reduce_scatter-split.txt"], {}),
    "nccl-tests json": (["sendrecv.json"], {}),
    "nccl-topology switch": (["h100-node.xml"], {"nodes": 4}),
    "nccl-topology pairs": (["a100-pairs.xml"], {"nodes": 2}),
    "nvidia-smi-topo switch": (
        ["topo-h100.txt"],
        {"accelerator": "h100-sxm", "nodes": 4, "nic_bytes_per_second": 50e9},
    ),
    "nvidia-smi-topo mesh": (
        ["topo-v100-mesh.txt"],
        {"accelerator": "v100-32", "nodes": 2, "nic_bytes_per_second": 12.5e9},
    ),
    "kineto": (["trace-rank0.json", "trace-rank1.json"], {}),
    "calculon system": (["calculon-system.json"], {"nodes": 8}),
    "calculon application": (["calculon-application.json"], {}),
    "simumax system": (["simumax-system.json"], {"nodes": 2}),
    "simumax products": (["simumax-system.json"], {"target": "profile"}),
    "simumax model": (["simumax-model.json"], {}),
    "simumax experts": (["simumax-experts.json"], {}),
    "galvatron bandwidths": (
        [
            "allreduce_bandwidth_2nodes_8gpus_per_node.json",
            "p2p_bandwidth_2nodes_8gpus_per_node.json",
        ],
        {"accelerator": "a100-80"},
    ),
    "galvatron profile": (
        [
            "sp_time_1nodes_8gpus_per_node.json",
            "overlap_coefficient.json",
            "computation_profiling_bf16_made-up.json",
            "memory_profiling_bf16_made-up.json",
        ],
        {},
    ),
}


def outcome(name: str) -> Outcome:
    """What one case makes."""
    files, options = CASES[name]
    return formats.import_files([SAMPLES / file for file in files], Wanted(**options))


def answers() -> dict[str, Any]:
    """The document of every case, but for the moment of the import."""
    found = {name: outcome(name).document.model_dump(mode="json") for name in CASES}
    for document in found.values():
        document.pop("created", None)
    return found


def text(values: dict[str, Any]) -> str:
    """The golden file's text."""
    return json.dumps(values, indent=1) + "\n"
