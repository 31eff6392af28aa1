"""Run: one measured training run of somebody, as one tidy row.

The columns are the fields of Run (other columns are ignored, missing ones unknown). A cell that
is empty or says `unknown`, `n/a`, `nan`, `null`, `-` or `?` (a number also `none`) is unknown and
stays None: nothing is invented while reading. Numbers may have separators of thousands (`2,500`)
and the unit of their column or one that it is converted from (`45 %`, `350 ms`, `70B`, `64 GB`), a
length may count in 1024 (`8k`), a ZeRO stage may be named (`ZeRO-3`). A cell that cannot be read is
an InputError with file, line and column.
"""

import csv
import dataclasses
import difflib
import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.spec.documents import InputError

UNKNOWN = frozenset({"", "unknown", "n/a", "na", "nan", "null", "?", "-", "–"})
YES = frozenset({"1", "1.0", "true", "yes", "y", "on"})
NO = frozenset({"0", "0.0", "false", "no", "n", "off"})
MAY_BE_ZERO = frozenset({"zero_stage", "cp", "ep", "etp", "vpp", "n_experts", "experts_per_token"})
"""Whole numbers that sources write as 0 for "none"; all others count something."""

THOUSANDS = r"\d{1,3}(,\d{3})+(\.\d+)?"

GIB = 2.0**30
UNITS: dict[str, dict[str, float]] = {
    "params_b": {"b": 1.0, "m": 1e-3, "t": 1e3},
    "step_time_s": {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "min": 60.0},
    "step_time_best_s": {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "min": 60.0},
    "tokens_per_s_per_gpu": {"tokens/s": 1.0, "tok/s": 1.0, "tokens/s/gpu": 1.0, "k": 1e3},
    "tflops_per_gpu": {"tflops": 1.0, "tflop/s": 1.0, "tflop/s/gpu": 1.0, "pflop/s": 1e3},
    "mfu_pct": {"%": 1.0},
    "peak_mem_gib": {"gib": 1.0, "gb": 1e9 / GIB, "mib": 2.0**-10},
}
"""What may stand behind a number, and the factor to the unit of its column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A row. None is unknown. line: where it begins in its file, from 1.

    micro_batch: sequences of one microbatch on one rank; global_batch: sequences per step;
    grad_accum: microbatches per step. shard: ranks that one copy of the states is divided over,
    where that is not all replicas (hybrid sharding, slices of a pod). step_time_s is what the
    source prints, step_time_best_s the best that can be derived from it (step_time_kind says
    how). warning: the source contradicts itself. notes tell failed runs (out of memory, crashed).
    """

    file: str
    line: int
    source: str | None = None
    model: str | None = None
    arch: str | None = None
    n_layers: int | None = None
    hidden: int | None = None
    ffn_hidden: int | None = None
    n_heads: int | None = None
    n_kv_heads: int | None = None
    vocab: int | None = None
    gated_mlp: bool | None = None
    n_experts: int | None = None
    experts_per_token: int | None = None
    params_b: float | None = None
    seq_len: int | None = None
    gpu: str | None = None
    n_gpus: int | None = None
    gpus_per_node: int | None = None
    intra_node_link: str | None = None
    inter_node_link: str | None = None
    runtime: str | None = None
    dtype: str | None = None
    dp: int | None = None
    tp: int | None = None
    pp: int | None = None
    cp: int | None = None
    ep: int | None = None
    etp: int | None = None
    vpp: int | None = None
    zero_stage: int | None = None
    fsdp: bool | None = None
    shard: int | None = None
    sequence_parallel: bool | None = None
    recompute: str | None = None
    flash_attention: bool | None = None
    micro_batch: int | None = None
    global_batch: int | None = None
    grad_accum: int | None = None
    step_time_s: float | None = None
    tokens_per_s_per_gpu: float | None = None
    tflops_per_gpu: float | None = None
    mfu_pct: float | None = None
    peak_mem_gib: float | None = None
    step_time_best_s: float | None = None
    step_time_kind: str | None = None
    complete_config: bool | None = None
    warning: bool | None = None
    year: int | None = None
    source_ref: str | None = None
    notes: str | None = None

    @property
    def timed(self) -> bool:
        """Whether the source tells the step's time in any way."""
        told = (self.step_time_s, self.step_time_best_s, self.tokens_per_s_per_gpu)
        return any(told)

    @property
    def rated(self) -> bool:
        """Whether the source tells the step's FLOP/s, as such or as a share of the peak."""
        return bool(self.tflops_per_gpu or self.mfu_pct)

    def step_seconds(self, devices: int, sequences: int) -> float | None:
        """The measured step: as printed, else as derived, else from the tokens per second."""
        if best := self.step_time_s or self.step_time_best_s:
            return best
        if not self.tokens_per_s_per_gpu or self.seq_len is None:
            return None
        return sequences * self.seq_len / (self.tokens_per_s_per_gpu * devices)

    @property
    def peak_bytes(self) -> float | None:
        """The measured peak memory of one device."""
        return None if self.peak_mem_gib is None else self.peak_mem_gib * GIB


PLACE = ("file", "line")
TYPES = {field.name: field.type for field in dataclasses.fields(Run) if field.name not in PLACE}
COLUMNS = tuple(TYPES)


def read_runs(path: Path | str) -> tuple[Run, ...]:
    """Every row of a CSV file. Raises InputError."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    return parse_runs(text, str(path))


def parse_runs(text: str, file: str) -> tuple[Run, ...]:
    """Every row of CSV text. Raises InputError that names `file`."""
    reader = csv.reader(io.StringIO(text))
    header = [cell.strip().lower() for cell in next(reader, [])]
    _check_header(header, file)
    runs = []
    line = reader.line_num + 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            runs.append(_run(header, cells, file, line))
        line = reader.line_num + 1
    return tuple(runs)


def _check_header(header: list[str], file: str) -> None:
    known = [name for name in header if name in TYPES]
    if not known:
        close = [m for name in header for m in difflib.get_close_matches(name, COLUMNS, n=1)]
        hint = f"did you mean {', '.join(close)}? " if close else ""
        raise InputError(
            f"{file}: line 1: no column is one of a measured run; {hint}"
            f"the first line must name columns such as model, gpu, n_gpus, dp, tp, pp, "
            f"micro_batch, global_batch, seq_len, step_time_s"
        )
    twice = sorted({name for name in known if known.count(name) > 1})
    if twice:
        raise InputError(f"{file}: line 1: column {twice[0]!r} is there twice; keep one of them")


def _run(header: list[str], cells: list[str], file: str, line: int) -> Run:
    if len(cells) > len(header):
        raise InputError(
            f"{file}: line {line}: has {len(cells)} cells, the header has {len(header)}; "
            f'put text with commas in quotation marks ("...")'
        )
    values: dict[str, Any] = {
        name: _cell(name, cell.strip(), file, line)
        for name, cell in zip(header, cells, strict=False)
        if name in TYPES
    }
    return Run(file=file, line=line, **values)


def _cell(name: str, text: str, file: str, line: int) -> Any:
    if text.lower() in UNKNOWN:
        return None
    parse, remedy = READERS[TYPES[name]]
    if parse in (_whole, _number) and text.lower() == "none":
        return None
    try:
        value = parse(_spelled_out(name, text))
        if isinstance(value, int | float) and not isinstance(value, bool):
            _check_size(name, value)
    except ValueError:
        raise InputError(
            f"{file}: line {line}: {name}: {text!r} {remedy}, or leave the cell empty if the "
            f"source does not say"
        ) from None
    return value


def _check_size(name: str, value: float) -> None:
    if value < 0 or (value == 0 and isinstance(value, int) and name not in MAY_BE_ZERO):
        raise ValueError


def _spelled_out(name: str, text: str) -> str:
    """A number as people write it, as digits."""
    if TYPES[name] in (int | None, float | None) and re.fullmatch(THOUSANDS, text):
        return text.replace(",", "")
    if name in UNITS and (found := re.fullmatch(r"~?([\d.,]+) ?([a-z%][a-z/%]*)", text.lower())):
        factor = UNITS[name].get(found[2])
        return text if factor is None else repr(float(found[1].replace(",", "")) * factor)
    if name == "year" and (found := re.match(r"(20\d\d)\D", text)):
        return found[1]
    if name == "seq_len" and (found := re.fullmatch(r"(\d+) ?[kK]", text)):
        return str(1024 * int(found[1]))
    if name == "zero_stage" and (found := re.fullmatch(r"(?:zero|stage)[ -]*(\d)", text.lower())):
        return found[1]
    return text


def _whole(text: str) -> int:
    number = float(text)
    if not number.is_integer():
        raise ValueError
    return int(number)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def _flag(text: str) -> bool:
    if text.lower() in YES | NO:
        return text.lower() in YES
    raise ValueError


READERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    str | None: (str, "cannot be read"),
    int | None: (_whole, "is not a whole number that counts something; write one such as 8"),
    float | None: (_number, "is not a number from 0 on; write one such as 12.5"),
    bool | None: (_flag, "is neither yes nor no; write 1 or 0"),
}
