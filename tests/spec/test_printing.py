"""Tables for people: whole where they fit, their long words beneath them where they do not."""

import re

import pytest

from planner.spec import printing

PLAN = "dp=8 pp=2 vpp=5 micro_batch=1 zero=1 recompute=none schedule=interleaved"
ROWS = [
    {
        "plan": PLAN,
        "step": "3.26 s",
        "fits": "no",
        "why": "over memory by 5.3 GiB, so it was left out",
    },
    {"plan": "dp=1", "step": "1 s", "fits": "yes", "why": ""},
]


def printed(
    rows: list[dict[str, str]],
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    printing.print_table(rows, "Plans")
    plain = re.sub(r"\x1b\[\d+m", "", capsys.readouterr().out)
    return [line.rstrip() for line in plain.splitlines()]


@pytest.mark.parametrize("columns", [52, 60, 110, 200])
def test_no_line_is_too_long_and_no_word_is_lost(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(ROWS, columns, monkeypatch, capsys)
    assert max(map(len, lines)) <= columns
    text = " ".join(" ".join(lines).split())
    for word in [word for row in ROWS for cell in row.values() for word in cell.split()]:
        assert word in text


def test_a_table_that_fits_stays_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(ROWS, 200, monkeypatch, capsys)
    (row,) = (line for line in lines if "3.26 s" in line)
    assert PLAN in row
    assert ROWS[0]["why"] in row


def test_long_words_stand_beneath_under_their_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(ROWS, 110, monkeypatch, capsys)
    assert [line for line in lines if line[:1].isdigit()] == [f"1 {PLAN}", "2 dp=1"]
    (row,) = (line for line in lines if "3.26 s" in line)
    assert ROWS[0]["why"] in row
    lines = printed(ROWS, 52, monkeypatch, capsys)
    assert f"  why: {ROWS[0]['why']}" in lines
    assert "2 plan: dp=1" in lines


def test_short_cells_are_folded_and_not_moved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{f"column {i}": f"{i} of nine" for i in range(9)}]
    lines = printed(rows, 60, monkeypatch, capsys)
    assert max(map(len, lines)) <= 60
    assert not any(re.match(r"\d", line) for line in lines)


def test_spaces_go_before_a_number_is_folded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {f"column {i}": f"{i}2.02-15.93 s" for i in range(5)}
    lines = printed([row], 76, monkeypatch, capsys)
    (shown,) = (line for line in lines if "s│" in line)
    assert [cell for cell in shown.split("│") if cell] == list(row.values())
