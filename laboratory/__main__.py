"""`make lab`: at least 24 plans on three topologies, predicted beside measured.

Prints one row per plan, one per topology and the whole, and what was promised. Exit code 1 where a
promise is not kept or a run fails, 2 where the network cannot be made, 0 (with the reason) where
this machine cannot have one. Ctrl-C and SIGTERM end ranks, workers and the network first.
"""

import argparse
import dataclasses
import json
import signal
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from executor.processes.supervisor import RunError
from laboratory import network
from laboratory.experiment import Summary, Trial, compute_profile, summary, trials
from laboratory.topology import TOPOLOGIES
from planner.spec import documents, printing
from planner.spec.documents import InputError
from planner.spec.units import format_seconds
from profiler import team

MEDIAN_ERROR, BEST_LOSS, RANK_CORRELATION = 0.10, 0.03, 0.95
"""Promised."""
NAMES = tuple(topology.name for topology in TOPOLOGIES)


def main() -> int:
    """Run the laboratory; returns the exit code."""
    arguments = _parser().parse_args()
    end_on_sigterm()
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        _say("interrupted")
        return 128 + signal.SIGINT
    except (InputError, RunError, team.RunError) as error:
        _say(str(error))
        return 2 if isinstance(error, InputError) else 1


def end_on_sigterm() -> None:
    """Let SIGTERM end this process as an exception does, so that nothing it started stays."""
    signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + number)


def _run(arguments: argparse.Namespace) -> int:
    if (reason := network.problem()) is not None:
        sys.stderr.write(f"laboratory: skipped: {reason}\n")
        return 0
    chosen = [each for each in TOPOLOGIES if each.name in (arguments.topology or NAMES)]
    _say("measuring this machine's compute")
    compute = compute_profile(max(topology.ranks for topology in chosen))
    found: list[Trial] = []
    for topology in chosen:
        found += trials(topology, compute, arguments.plans, _say)
    summaries = [
        summary(topology.name, [trial for trial in found if trial.topology == topology.name])
        for topology in chosen
    ]
    printing.print_table([_row(trial) for trial in found], "Plans")
    printing.print_table([_summary_row(each) for each in summaries], "Topologies")
    if arguments.output is not None:
        documents.write_text(
            arguments.output, json.dumps(_value(found, summaries), indent=1) + "\n"
        )
    broken = list(_broken(found, summaries))
    for promise in broken:
        sys.stderr.write(f"laboratory: not kept: {promise}\n")
    return 1 if broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m laboratory", description=__doc__)
    parser.add_argument("--plans", type=int, default=8, help="plans per topology")
    parser.add_argument("--topology", choices=NAMES, action="append", help="only this one")
    parser.add_argument("-o", "--output", type=Path, help="write the results as JSON")
    return parser


def _say(text: str) -> None:
    sys.stderr.write(f"laboratory: {text}\n")


def _broken(found: Sequence[Trial], summaries: Sequence[Summary]) -> list[str]:
    median = statistics.median(abs(trial.error) for trial in found)
    worst = max(each.best_loss for each in summaries)
    lowest = min(each.rank_correlation for each in summaries)
    said = []
    if median > MEDIAN_ERROR:
        said.append(f"median error {median:.1%}, promised {MEDIAN_ERROR:.0%}")
    if worst > BEST_LOSS:
        said.append(f"a predicted best loses {worst:.1%}, promised {BEST_LOSS:.0%}")
    if lowest < RANK_CORRELATION:
        said.append(f"rank correlation {lowest:.3f}, promised {RANK_CORRELATION}")
    return said


def _row(trial: Trial) -> dict[str, object]:
    return {
        "topology": trial.topology,
        "plan": trial.plan,
        "predicted": format_seconds(trial.predicted),
        "measured": format_seconds(trial.measured),
        "error": f"{trial.error:+.1%}",
    }


def _summary_row(each: Summary) -> dict[str, object]:
    return {
        "topology": each.name,
        "plans": each.plans,
        "median error": f"{each.median_error:.1%}",
        "predicted best loses": f"{each.best_loss:.1%}",
        "rank correlation": f"{each.rank_correlation:.3f}",
    }


def _value(found: Sequence[Trial], summaries: Sequence[Summary]) -> dict[str, object]:
    return {
        "schema": "laboratory/1",
        "trials": [dataclasses.asdict(trial) for trial in found],
        "topologies": [dataclasses.asdict(each) for each in summaries],
    }


if __name__ == "__main__":
    sys.exit(main())
