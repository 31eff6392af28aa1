"""The description of this machine."""

import os
import platform
from pathlib import Path

import pytest
import torch

from profiler import machine


def test_describes_this_machine() -> None:
    found = machine.describe()
    assert found.torch == torch.__version__
    assert found.kind == ("cuda" if torch.cuda.is_available() else "cpu")
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert 2**26 < found.memory_bytes < 2**50
    assert found.processor


def test_names_no_host() -> None:
    assert platform.node() not in machine.describe().model_dump_json() or len(platform.node()) < 4


def test_a_cgroup_limits_memory_and_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    free = machine.memory_bytes()
    (tmp_path / "memory.max").write_text("1048576\n")
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert machine.memory_bytes() == 1048576 < free
    assert machine.cores() == 1
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.memory_bytes() == free
    assert machine.cores() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor : 0\nmodel name\t: Some  CPU @ 2GHz\n", "Some CPU @ 2GHz"),
        ("processor : 0\nModel : Board 5\n", "Board 5"),
    ],
)
def test_reads_the_processor_model(
    text: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    assert machine.processor() == name
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "none")
    assert machine.processor()


def test_ranks_on_a_cpu_have_one_thread() -> None:
    assert machine.rank_environment("cpu")["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in machine.rank_environment("cuda")
