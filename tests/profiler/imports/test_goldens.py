"""Every sample imports to the document that was reviewed."""

import json

import pytest

from planner.spec import documents
from profiler.imports import answer
from tests.profiler.imports.cases import CASES, GOLDEN, answers, outcome


def test_the_goldens_hold_every_case() -> None:
    assert list(json.loads(GOLDEN.read_text())) == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_documents_are_the_kept_ones(name: str) -> None:
    assert _rounded(answers()[name]) == _rounded(json.loads(GOLDEN.read_text())[name])


def _rounded(value: object) -> object:
    """Floats to nine digits: fits differ in the last ones between machines."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value


@pytest.mark.parametrize("name", CASES)
def test_documents_survive_the_disk(name: str, tmp_path) -> None:
    document = outcome(name).document
    path = documents.save(document, tmp_path / "document.json")
    assert documents.load(type(document), path) == document


@pytest.mark.parametrize("name", CASES)
def test_every_document_has_tables(name: str) -> None:
    shown = answer.tables(outcome(name).document)
    assert shown[0][1]
    for _, rows in shown:
        assert len({tuple(row) for row in rows}) <= 1  # one header per table
