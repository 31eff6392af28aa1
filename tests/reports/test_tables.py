import io
import json

from rich.console import Console

from reports.results import PlanResult
from reports.tables import plans_json, plans_rows, plans_table, readable
from tests.reports.conftest import PIPELINE, make_result


def test_rows_are_si_numbers_with_the_unit_in_the_key(results: list[PlanResult]) -> None:
    row = plans_rows(results)[0]
    assert row["measured_step_seconds"] == results[0].measured_seconds
    assert row["predicted_peak_bytes"] == results[0].predicted_peak_bytes


def test_json_holds_the_rows(results: list[PlanResult]) -> None:
    rows = plans_rows([*results, make_result(PIPELINE, None)])
    value = json.loads(json.dumps(plans_json([*results, make_result(PIPELINE, None)])))
    assert value == {"schema": "results/1", "plans": rows}
    assert rows[-1]["measured_step_seconds"] is None


def test_no_results_make_an_empty_table() -> None:
    assert plans_table([]).row_count == 0


def test_the_table_prints_units_and_dashes() -> None:
    table = plans_table([make_result(PIPELINE), make_result(PIPELINE, None)], "plans")
    text = io.StringIO()
    Console(file=text, width=160).print(table)
    assert "120.0 MiB" in text.getvalue()
    assert "367.0 ms" in text.getvalue()
    assert "–" in text.getvalue()


def test_readable_rows_move_units_into_the_cells() -> None:
    row = {"kind": "forward", "median_seconds": 0.0142, "peak_bytes": None, "error": -0.1}
    assert readable(row | {"kept": False}) == {
        "kind": "forward",
        "median": "14.2 ms",
        "peak": "–",
        "error": "−10.0%",
        "kept": "NO",
    }
