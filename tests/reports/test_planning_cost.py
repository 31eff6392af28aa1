"""The curves of planning time: kept as numbers, drawn, and put between two marks of a document."""

from pathlib import Path

from reports.planning import scaling
from reports.planning.scaling import Cost

CURVES = {
    "devices": [
        Cost("devices", 8, 0.4, 3089, 19, 131, 0.0, "dp=8"),
        Cost("devices", 64, 0.5, 22164, 21, 140, 0.001, "dp=16 cp=4"),
    ],
    "layers": [Cost("layers", 512, 12.5, 56436, 330, 200, 0.0, "pp=16")],
}


def test_curves_are_kept_and_read_again(tmp_path: Path) -> None:
    scaling.keep(CURVES, tmp_path)
    assert scaling.read(tmp_path) == CURVES


def test_tables_name_every_point_with_its_gap() -> None:
    text = scaling.tables(CURVES)
    assert "| 64 | 0.50 | 22,164 | 21 | 140 MiB | 0.10% | dp=16 cp=4 |" in text
    assert text.count("| plan found |") == 2


def test_the_figure_has_an_axis_for_every_curve() -> None:
    figure = scaling.plot(CURVES).get_figure(root=True)
    assert figure is not None
    assert [ax.get_xlabel() for ax in figure.axes] == ["devices", "layers"]


def test_points_are_questions_of_the_right_size() -> None:
    assert scaling.deep(5).layers == 5
    assert scaling.problem("devices", 64).global_batch == 64 * scaling.PER_DEVICE
    assert "5 layers" in scaling.problem("layers", 5).title


def test_only_what_stands_between_the_marks_is_written(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(scaling, "measured", lambda name, size: CURVES[name][0])
    marks = f"before\n{scaling.BEGIN}old\n{scaling.END}after\n"
    (tmp_path / "search.md").write_text(marks)
    scaling.main(str(tmp_path))
    text = (tmp_path / "search.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert (tmp_path / "figures" / "planning-cost.svg").exists()
