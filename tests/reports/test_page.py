import json
import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from planner.spec import documents
from planner.spec.layout import Layout
from planner.spec.plan import Plan
from reports.page import default_title, render_page, write_page
from reports.results import PlanResult
from tests.reports.conftest import PIPELINE, make_machine, make_result, make_timeline

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "</script><script>alert('&\"')</script><b id=x>"


class Reader(HTMLParser):
    """Collects tags, attributes, text and what stands in each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            name = self.tags[-1][1]["id"]
            assert name
            self.scripts[name] = self.scripts.get(name, "") + data
        else:
            self.text += data

    def values(self, *names: str) -> list[str]:
        return [v for _, attrs in self.tags for n, v in attrs.items() if n in names and v]


@pytest.fixture(scope="module")
def html(results: list[PlanResult]) -> str:
    return render_page(results, "A question")


@pytest.fixture(scope="module")
def reader(html: str) -> Reader:
    return Reader(html)


def test_the_page_needs_nothing_from_outside(html: str, reader: Reader) -> None:
    links = reader.values("src", "href", "xlink:href", "action", "data", "srcset")
    assert links
    assert all(link.startswith(("#", "data:image/png")) for link in links)
    assert not {"link", "iframe", "object", "img", "base"} & {tag for tag, _ in reader.tags}
    style = html.partition("<style>")[2].partition("</style>")[0]
    assert "@import" not in style
    assert "url(" not in style
    kinds = {attrs["type"] for tag, attrs in reader.tags if tag == "script"}
    assert kinds == {"application/json"}


def test_no_id_appears_twice_and_every_reference_has_its_id(html: str, reader: Reader) -> None:
    ids = Counter(reader.values("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    used = {link[1:] for link in reader.values("href", "xlink:href") if link.startswith("#")}
    used |= set(re.findall(r"url\(#([^)]+)\)", html))
    assert len(used) > 20
    assert used <= set(ids)


def test_figures_keep_no_prologue_and_no_style_of_their_own(html: str) -> None:
    assert html.count("<style") == 1
    assert "<?xml" not in html
    assert "<metadata" not in html
    assert html.lower().count("<!doctype") == 1
    assert html.lower().startswith("<!doctype html>")


def test_two_renders_are_equal_byte_for_byte(results: list[PlanResult], html: str) -> None:
    assert render_page(results, "A question") == html


def test_the_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    result = make_result(PIPELINE)
    assert result.measured is not None
    documents.save(result.plan, tmp_path / "plan-1.json")
    documents.save(result.predicted, tmp_path / "timeline-1.json")
    documents.save(result.measured, tmp_path / "measured-1.json")
    code = (
        "import pathlib, sys\nfrom reports import page, runs\n"
        "page.write_page(runs.read_runs(pathlib.Path(sys.argv[1])), sys.argv[2], 'page')"
    )
    pages = []
    for seed in ("1", "2"):
        words = [sys.executable, "-c", code, str(tmp_path), str(tmp_path / f"{seed}.html")]
        subprocess.run(words, check=True, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed})
        pages.append((tmp_path / f"{seed}.html").read_bytes())
    assert pages[0] == pages[1]


def test_every_plan_can_be_loaded_from_the_page(results: list[PlanResult], reader: Reader) -> None:
    assert len(reader.scripts) == len(results)
    for number, result in enumerate(results, start=1):
        value = json.loads(reader.scripts[f"plan-{number}"])
        assert documents.parse(Plan, value, "page") == result.plan


def test_what_comes_from_documents_is_escaped() -> None:
    layout = Layout(dp=2, micro_batch=2)
    plain = make_result(layout, why=(HOSTILE,))
    model = plain.plan.model.replace(name=HOSTILE)
    plan = plain.plan.replace(model=model, version=HOSTILE)
    timeline = make_timeline(layout, 4).replace(title=HOSTILE)
    first = timeline.spans[0].replace(name=HOSTILE)
    timeline = timeline.replace(spans=(first, *timeline.spans[1:]))
    assert plain.measured is not None
    ran = plain.measured.replace(machine=make_machine(processor=HOSTILE))
    found = Reader(render_page([PlanResult(plan, timeline, ran)], HOSTILE))
    assert [attrs["id"] for tag, attrs in found.tags if tag == "script"] == ["plan-1"]
    assert "x" not in found.values("id")
    assert found.text.count(HOSTILE) >= 5
    assert json.loads(found.scripts["plan-1"])["model"]["name"] == HOSTILE


def test_the_page_says_verdict_errors_and_provenance(reader: Reader) -> None:
    assert "The best plan is dp=4" in reader.text
    assert "Ranks held more memory than predicted with dp=4" in reader.text
    assert "measured 60.0%" in reader.text
    assert "Example CPU 3.0 GHz, 8 cores" in reader.text
    assert "The step takes 0.3 s: forward 30%, backward 60%." in reader.text
    assert ("td", {"class": "broken"}) in reader.tags


def test_every_figure_has_its_data(reader: Reader) -> None:
    tags = Counter(tag for tag, _ in reader.tags)
    assert tags["figure"] == tags["details"] == tags["svg"] == 2 + 3 * 4


def test_a_page_of_predictions_only() -> None:
    found = Reader(render_page([make_result(PIPELINE, None)], "Predicted"))
    assert "nothing measured" in found.text
    assert "Predicted and measured" not in found.text
    bare = make_result(PIPELINE, None)
    bare = PlanResult(
        bare.plan.replace(predicted=None), bare.predicted.replace(memory=(), peak_bytes={})
    )
    assert Counter(tag for tag, _ in Reader(render_page([bare], "Bare")).tags)["figure"] == 2


def test_the_page_is_written_where_it_is_told(tmp_path: Path) -> None:
    result = make_result(Layout(), None)
    path = write_page([result], tmp_path / "deep" / "report.html", default_title([result]))
    assert "<h1>small-gpt2 on local</h1>" in path.read_text(encoding="utf-8")
