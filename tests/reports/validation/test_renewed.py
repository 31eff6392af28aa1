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
    found = renewed(OLD, NEW, ["Elsewhere"], "Again on 2026-02-02: NeMo.")
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
    assert renewed(OLD, empty, [], "") == OLD.replace("2026-01-01.", "2026-01-01. ")
