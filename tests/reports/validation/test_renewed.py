"""Some figures of the document made again: what is new is taken, all else stays."""

from reports.validation.renewed import renewed

OLD = """# Title

Made whole on 2026-01-01.

## Time

| rows | median |
|---|---|
| NeMo; model | 9.0 % |
| vTrain; hidden | 5.0 % |

## Order

| rows | pairs |
|---|---|
| vTrain; hidden | 94 % |

Another question:

| rows | wide pairs |
|---|---|
| NeMo; model | 80 % |
| vTrain; hidden | 93 % |

## Elsewhere

Old words.

| rows | median |
|---|---|
| torchtitan | 7.0 % |

## What falls short

- NeMo; model: 9.0 % median error, target 6.0 %.
- vTrain; hidden: 94 % pairs.
"""

NEW = """# Title

Made .

## Time

| rows | median |
|---|---|
| NeMo; model | 3.0 % |

## Order


Another question:

| rows | wide pairs |
|---|---|
| NeMo; model | 81 % |

## Elsewhere

New words.

## What falls short

- Nothing.
"""


def test_only_what_was_made_again_changes() -> None:
    found = renewed(OLD, NEW, ["Elsewhere"], "2026-02-02", ["NeMo"])
    expected = (
        OLD.replace("9.0 % |", "3.0 % |")
        .replace("80 %", "81 %")
        .replace("2026-01-01.", "2026-01-01. Again on 2026-02-02: NeMo.")
        .replace("- NeMo; model: 9.0 % median error, target 6.0 %.\n", "")
    )
    head, rest = expected.split("## Elsewhere")
    assert (
        found
        == f"{head}## Elsewhere\n\nNew words.\n\n## What falls {rest.split('## What falls ')[1]}"
    )


def test_nothing_made_again_leaves_the_text() -> None:
    empty = "# Title\n\n## Time\n\n## Order\n\n## What falls short\n\n- Nothing.\n"
    told = "2026-01-01. Again on 2026-02-02: NeMo."
    once = renewed(OLD, empty, [], "2026-02-02", ["NeMo"])
    assert once == OLD.replace("2026-01-01.", told)
    twice = renewed(once, empty, [], "2026-02-02", ["elsewhere", "NeMo"])
    assert twice == OLD.replace("2026-01-01.", f"{told[:-1]}, elsewhere.")
    later = renewed(once, empty, [], "2026-03-03", ["vTrain"])
    assert later == OLD.replace("2026-01-01.", f"{told} Again on 2026-03-03: vTrain.")
