"""The study of the search, written as docs/planning.md: what it finds beside layouts of others.

make planning        (python -m reports.planning.study [FOLDER])
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from planner.spec.documents import write_text
from reports.planning.published import Compared, compared, configurations

HEAD = """# What the search finds

Written by `make planning`; do not edit. Every pre-training configuration of
`planner/catalog/runs/` (SC'21 table 1, NeMo 24.07) beside the plan that the search finds for the
same model, devices, batch, sequence, dtype and runtime. *estimate*: the published layout, replayed
under the row's runtime and calibration; *gain* = estimate / found - 1.

**The gain is the cost model's claim; no found plan was run.** The constants were fitted to these
very rows, so the estimates are in sample, and the plans leave the layouts that they were fitted on.
Compare the gain with *off*, the error of the estimate on the published layout, and with the band of
`docs/validation.md`. Gains where the found plan does not recompute rest on the
predicted peak alone.
Runtimes that demand equal stages (Megatron-LM of 2021) get only such plans.
Layouts above 88 % of the memory by prediction are not searched, though those
listed below ran: recompute and ZeRO of the NeMo rows are assumed (the table does not print
them), so a predicted peak may be too high; the limit of 88 % costs most negative
gains.

"""


def main(folder: str = "docs") -> None:
    """Write the document."""
    found, skipped = configurations()
    write_text(Path(folder) / "planning.md", document([compared(each) for each in found], skipped))


def document(found: Sequence[Compared], skipped: Mapping[str, int]) -> str:
    """The whole text."""
    lines = [_row(each) for each in found]
    table = ["| " + " | ".join(lines[0]) + " |", "|" + "---|" * len(lines[0])]
    table += ["| " + " | ".join(line.values()) + " |" for line in lines]
    apart = [f"- {why}: {count} rows\n" for why, count in skipped.items()]
    worse = [_outside(each) for each in found if each.outside]
    return "".join(
        [
            HEAD,
            "\n".join(table) + "\n",
            "\n## Published layouts that the search could not choose\n\n",
            *(worse or ["None.\n"]),
            "\n## Rows left out\n\n",
            *(apart or ["None.\n"]),
        ]
    )


def _row(each: Compared) -> dict[str, str]:
    case, measured = each.configuration.case, each.configuration.measured_seconds
    ours, theirs = each.found.predicted, each.published.predicted
    assert ours is not None
    assert theirs is not None
    first = measured[0] if measured else 0.0
    return {
        "model, devices": f"{case.run.model}, {case.layout.devices:,}",
        "measured s": " / ".join(f"{seconds:.2f}" for seconds in measured),
        "published": each.published.title.partition(" stages=")[0],
        "estimate s": f"{theirs.step_seconds:.2f}",
        "off": f"{theirs.step_seconds / first - 1:+.1%}" if first else "",
        "found": "the published one" if each.same else each.found.title.partition(" stages=")[0],
        "found s": f"{ours.step_seconds:.2f}",
        "gain": f"{each.gain:+.1%}",
        "gap": f"{each.ranking.gap or 0.0:.2%}",
        "CPU s": f"{each.ranking.cpu_seconds:.1f}",
    }


def _outside(each: Compared) -> str:
    run = each.configuration.case.run
    return f"- {run.model} on {run.n_gpus}: {'; '.join(each.outside)}\n"


if __name__ == "__main__":
    main(*sys.argv[1:2])
