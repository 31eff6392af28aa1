"""Formats are known by their content; files are found, unpacked and refused at the door."""

import contextlib
import gzip
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec.documents import InputError
from profiler.imports import formats, source
from profiler.imports.outcome import Wanted, read_rate, read_target
from profiler.imports.source import Source
from tests.profiler.imports.cases import CASES, SAMPLES, outcome

EVERYTHING = Wanted(accelerator="a100-80")


@pytest.mark.parametrize("name", CASES)
def test_content_shows_the_format_whatever_the_files_name(name, tmp_path):
    files, options = CASES[name]
    paths = []
    for number, file in enumerate(files):
        keeps = "galvatron" in name or "text" in name or "split" in name
        paths.append(tmp_path / (file if keeps else f"file{number}"))
        shutil.copy(SAMPLES / file, paths[-1])
    chosen = name.split()[0]
    guessed = formats.import_files(paths, Wanted(**options)).document
    named = formats.import_files(paths, Wanted(**options), chosen).document
    kept = {"created"}
    assert guessed.model_dump(exclude=kept) == named.model_dump(exclude=kept)
    assert type(guessed) is type(outcome(name).document)


@pytest.mark.parametrize("name", CASES)
def test_packed_files_are_the_same(name, tmp_path):
    files, options = CASES[name]
    paths = [tmp_path / f"{file}.gz" for file in files]
    for file, path in zip(files, paths, strict=True):
        path.write_bytes(gzip.compress((SAMPLES / file).read_bytes()))
    packed = formats.import_files(paths, Wanted(**options)).document
    kept = {"created", "provenance", "name", "accelerator", "source"}
    assert packed.model_dump(exclude=kept) == outcome(name).document.model_dump(exclude=kept)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
        (b"\x00\xff\xfe", "byte 1 is not UTF-8"),
        (b"hello\n", "no format that is known; name it"),
        (b"{}", "no format that is known"),
        (b'{"traceEvents": [', "line 1: not valid JSON"),
        (b"[1, 2]", "no format that is known"),
        (b'[{"ph": "X"', "not valid JSON"),
        (b"<html><body></html>", "not valid XML"),
        (b"\x1f\x8b\x08", "damaged gzip file"),
        (gzip.compress(b"size count busbw", mtime=0)[:-6], "damaged gzip file"),
        (b'{"a":' + b"9" * 5000 + b"}", "JSON that cannot be read"),
        (b'{"a":' * 100_000, "JSON"),
        (b"# out-of-place busbw\n", "no row of results"),
    ],
)
def test_files_that_are_nothing_are_refused(content, said, tmp_path):
    path = tmp_path / "file.any"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        formats.import_files([path], Wanted())
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_missing_files_folders_and_huge_ones_are_refused(tmp_path, monkeypatch):
    for path, said in ((tmp_path / "none", "no such file"), (tmp_path, "cannot be read")):
        with pytest.raises(InputError, match=said):
            source.read(path)
    monkeypatch.setattr(source, "MOST_BYTES", 100)
    big = tmp_path / "big.json"
    big.write_text("x" * 101)
    with pytest.raises(InputError, match="holds 101 B, more than the 100 B"):
        source.read(big)
    big.write_bytes(gzip.compress(b"x" * 10_000, mtime=0))
    with pytest.raises(InputError, match="unpacks to more than 100 B"):
        source.read(big)


def test_words_are_a_format_and_files(tmp_path, monkeypatch):
    assert formats.split_words(["kineto", "a", "b"])[0] == "kineto"
    assert formats.split_words(["a.json"])[0] is None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kineto").write_text("x")
    assert formats.split_words(["kineto"])[0] is None  # a file of that name
    with pytest.raises(InputError, match="no file"):
        formats.import_files([], Wanted())
    with pytest.raises(InputError, match="'nsys' is no format"):
        formats.import_files([SAMPLES / "h100-node.xml"], Wanted(), "nsys")
    with pytest.raises(InputError, match=r"of different formats \(kineto, nccl-topology\)"):
        formats.import_files([SAMPLES / "h100-node.xml", SAMPLES / "trace-rank0.json"], Wanted())


@pytest.mark.parametrize("chosen", formats.FORMATS)
@pytest.mark.parametrize("file", sorted(p.name for p in SAMPLES.iterdir() if p.is_file()))
def test_a_file_read_as_another_format_is_refused_not_crashed_on(chosen, file):
    own = next(name.split()[0] for name, (files, _) in CASES.items() if file in files)
    if own == chosen:
        return
    with pytest.raises(InputError, match=file.split(".")[0]):
        formats.import_files([SAMPLES / file], EVERYTHING, chosen)


@given(st.sampled_from(sorted(CASES)), st.data())
def test_a_file_cut_off_anywhere_is_read_or_refused(name, data):
    files, options = CASES[name]
    text = (SAMPLES / files[0]).read_text()
    cut = text[: data.draw(st.integers(1, len(text)))]
    _read_or_refuse(Source(SAMPLES / files[0], cut), name.split()[0], Wanted(**options))


@given(st.sampled_from(sorted(CASES)), st.data())
def test_a_file_with_a_damaged_place_is_read_or_refused(name, data):
    files, options = CASES[name]
    text = (SAMPLES / files[0]).read_text()
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from(["", "0", "-", "9" * 12, "x", " ", "\n", "null", "1e999"]))
    damaged = text[:place] + other + text[place + 1 :]
    _read_or_refuse(Source(SAMPLES / files[0], damaged), name.split()[0], Wanted(**options))


def _read_or_refuse(each: Source, chosen: str, wanted: Wanted) -> None:
    """Any other exception than InputError is our fault."""
    with contextlib.suppress(InputError):
        formats.read_sources([each], wanted, chosen)


@pytest.mark.parametrize("text", ["400", "fast", "0Gb/s", "-1Gb/s", "1e30GB/s"])
def test_speeds_need_a_unit_and_sense(text):
    assert read_rate("--nic-speed", None) is None
    assert read_rate("--nic-speed", "400Gb/s") == 50e9
    with pytest.raises(InputError, match="--nic-speed"):
        read_rate("--nic-speed", text)


def test_a_document_is_the_one_asked_for():
    assert read_target("profile") == "profile"
    with pytest.raises(InputError, match="write one of profile, cluster, accelerator, model"):
        read_target("plan")
    path = SAMPLES / "calculon-system.json"
    whole = formats.import_files([path], Wanted(target="cluster")).document
    device = formats.import_files([path], Wanted(target="accelerator")).document
    assert device == whole.accelerator
    with pytest.raises(InputError, match="makes a cluster/1 document; leave out --as"):
        formats.import_files([path], Wanted(target="profile"))
