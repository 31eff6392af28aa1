"""A history survives those who write it, and says which of its lines is spoiled."""

import os
from pathlib import Path

import pytest

from executor.training import history
from executor.training.history import StepRecord
from planner.spec.documents import InputError

RECORDS = [StepRecord(step, 2.0, 1.0, 1e-3, 0.1) for step in range(3)]


def test_half_a_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / history.NAME
    history.write(path, RECORDS[:2])
    history.append(path, RECORDS[2])
    assert history.read(path) == RECORDS
    os.truncate(path, path.stat().st_size - 5)
    assert history.read(path) == RECORDS[:2]


@pytest.mark.parametrize("line", [b"\0\0\0\n", b'{"step": 1}\n', b"3\n", b"\xff\xfe\n"])
def test_a_spoiled_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / history.NAME
    path.write_bytes(history.line(RECORDS[0]).encode() + line)
    with pytest.raises(InputError, match=r"history\.jsonl, line 2: no record of a step"):
        history.read(path)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / history.NAME).mkdir()
    with pytest.raises(
        InputError, match=r"history\.jsonl: step 0 cannot be written: .*; make room"
    ):
        history.append(tmp_path / history.NAME, RECORDS[0])


def test_a_writer_that_dies_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / history.NAME
    history.write(path, RECORDS)

    def die(*names: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        history.write(path, RECORDS[:1])
    assert history.read(path) == RECORDS
