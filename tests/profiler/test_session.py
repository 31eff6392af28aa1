"""Sessions: what they measure, keep, continue and leave out."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from planner.spec import documents
from planner.spec.documents import InputError
from planner.spec.profile import Profile
from profiler import (
    answer,
    collectives,
    commands,
    composition,
    grid,
    launch,
    operators,
    overlaps,
    question,
    session,
    slowdown,
)
from profiler.kinds import OperatorRequest
from profiler.layers import Reference
from profiler.products import MATMULS
from tests.examples import gpt2_like, with_attention

REQUESTS = [
    OperatorRequest("linear", {"m": 8, "k": 8, "n": 8, "bias": 0}, "fp32"),
    OperatorRequest("adamw", {"parameters": 64}, "fp32"),
]
REFERENCE = Reference(model=gpt2_like(), seq_len=8, micro_batch=2, dtype="fp32")


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    """Tiny messages and short laps: what is tested is which measurements are taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collectives, "ENDS", (1 << 10, 1 << 18))
        patch.setattr(collectives, "BETWEEN", ())
        for module, name in ((collectives, "SECONDS"), (operators, "SECONDS")):
            patch.setattr(module, name, 0.005)
        patch.setattr(composition, "SECONDS", 0.02)
        patch.setattr(slowdown, "SECONDS", 0.02)
        patch.setattr(composition, "PASSES", 1)
        patch.setattr(session, "COPY_BYTES", 1 << 20)
        yield


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Profile, Path, list[str]]:
    path = tmp_path_factory.mktemp("session") / "profile.json"
    said: list[str] = []
    profile = session.take_profile(
        REQUESTS,
        [5000],
        budget_seconds=600.0,  # a busy machine needs more than the usual minute
        reference=REFERENCE,
        checkpoint=path,
        progress=lambda what, used: said.append(what),
    )
    return profile, path, said


def test_holds_what_was_asked(taken: tuple[Profile, Path, list[str]]) -> None:
    profile, _, said = taken
    keys = {sample.key[:3] for sample in profile.operators}
    assert keys == {request.key for request in [*REQUESTS, *REFERENCE.operators()]}
    assert set(profile.composition) == {"forward", "backward"}
    assert {sample.op for sample in profile.collectives} == set(collectives.OPS)
    assert {s.message_bytes for s in profile.collectives} == {1 << 10, 5000, 1 << 18}
    assert {(fit.op, fit.ranks) for fit in profile.fits} == {(op, 2) for op in collectives.OPS}
    assert profile.slowdown[0] == (1, 1.0)
    assert profile.memory_bandwidth_bytes_per_second
    assert profile.provenance.birth == "measured"
    assert f"torch {profile.machine.torch}" in profile.provenance.source
    assert "left out" not in profile.provenance.source
    assert any("linear" in what for what in said)


def test_is_saved_as_it_is_returned(taken: tuple[Profile, Path, list[str]]) -> None:
    profile, path, _ = taken
    assert documents.load(Profile, path) == profile


def test_a_continued_profile_measures_nothing_again(
    taken: tuple[Profile, Path, list[str]],
) -> None:
    profile, _, _ = taken
    said: list[str] = []
    again = session.take_profile(
        REQUESTS,
        [5000],
        reference=REFERENCE,
        previous=profile,
        progress=lambda what, used: said.append(what),
    )
    assert said == []
    assert again.operators == profile.operators
    assert again.collectives == profile.collectives
    assert again.composition == profile.composition


def test_a_continued_profile_measures_what_is_new(
    taken: tuple[Profile, Path, list[str]],
) -> None:
    profile, _, _ = taken
    new = OperatorRequest("rmsnorm", {"rows": 4, "width": 8}, "fp32")
    said: list[str] = []
    again = session.take_profile(
        [*REQUESTS, new],
        reference=REFERENCE,
        previous=profile,
        progress=lambda what, used: said.append(what),
    )
    assert said == [f"{new} (case 1 of 1)"]
    assert again.operators[: len(profile.operators)] == profile.operators
    assert [sample.kind for sample in again.operators[len(profile.operators) :]] == ["rmsnorm"] * 2


def test_another_torch_is_refused_with_the_way_out(
    taken: tuple[Profile, Path, list[str]], tmp_path: Path
) -> None:
    profile, _, _ = taken
    other = profile.replace(machine=profile.machine.replace(torch="1.0"))
    with pytest.raises(InputError, match=r"torch '1\.0', here"):
        session.take_profile(previous=other)
    path = documents.save(other, tmp_path / "profile.json")
    with pytest.raises(InputError, match=r"profile\.json: machine: .* -o, .*--fresh"):
        question.previous(path, None, fresh=False)
    assert question.previous(path, None, fresh=True) is None
    assert question.previous(tmp_path / "new.json", None, fresh=False) is None
    with pytest.raises(InputError, match="--resume"):
        question.previous(path, path, fresh=True)


def test_a_broad_session_measures_the_grid_overlap_and_launch(
    taken: tuple[Profile, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted once, continued, and everything has a birth certificate of its own."""
    monkeypatch.setattr(overlaps, "SIZES", {"cpu": (1 << 12,)})
    monkeypatch.setattr(overlaps, "WIDTH", {"cpu": 16})
    for module in (overlaps, launch):
        monkeypatch.setattr(module, "SECONDS", 0.01)
    families = [
        [OperatorRequest(kind, {"m": 16, "n": 24, "k": 32}, "fp32") for kind in MATMULS],
        [OperatorRequest("matmul_nt", {"m": 16, "n": 16, "k": 32}, "fp8")],
    ]
    path = tmp_path / "profile.json"

    def stop(what: str, used: float) -> None:
        if "beside computing" in what:
            raise KeyboardInterrupt

    profile, _, _ = taken
    again = {"reference": REFERENCE, "designed": families, "checkpoint": path}
    with pytest.raises(KeyboardInterrupt):
        session.take_profile(REQUESTS, [5000], previous=profile, progress=stop, **again)
    kept = documents.load(Profile, path)
    assert kept.launch is not None
    assert kept.launch.kernel_seconds <= kept.launch.layer_host_seconds
    assert len(kept.operators) > len(profile.operators)
    found = session.take_profile(REQUESTS, [5000], previous=kept, **again)
    assert {s.op for s in found.overlaps} == set(overlaps.OPS)
    assert found.overlap_slowdown is not None
    assert "cases found done" in answer.remainder(found)
    samples = [*found.operators, *found.collectives, *found.overlaps, found.launch]
    assert all(s.provenance and s.provenance.birth == "measured" for s in samples)
    assert {s.kind for s in found.operators} >= set(MATMULS)
    assert "fp8" in {s.dtype for s in found.operators}


def test_a_spent_budget_leaves_out_and_says_so() -> None:
    profile = session.take_profile(REQUESTS, reference=REFERENCE, budget_seconds=1e-3)
    assert profile.operators == ()
    assert profile.slowdown == ((1, 1.0),)
    assert "left out: composition" in profile.provenance.source
    assert "more" in profile.provenance.source


def test_refuses_what_cannot_be_timed_before_starting() -> None:
    with pytest.raises(InputError, match="convolution"):
        session.take_profile([OperatorRequest("convolution", {}, "fp32")])


def test_refuses_layers_it_does_not_know_before_starting() -> None:
    odd = with_attention(gpt2_like(), score_cap=50.0)
    reference = Reference(model=odd, seq_len=8, micro_batch=2, dtype="fp32")
    with pytest.raises(InputError, match=r"small-gpt2.*attention\.score_cap=50\.0 .* grid"):
        session.take_profile(reference=reference)


def test_what_does_not_fit_the_memory_is_left_out() -> None:
    whole = session.Session(2, 60.0, None, None, None, "test")
    assert not whole._fits_memory(OperatorRequest("adamw", {"parameters": 10**14}, "fp32"))
    assert whole._fits_memory(REQUESTS[0])


def test_common_collectives_come_first() -> None:
    first, later = collectives.essential(4, [12345]), collectives.further(4)
    assert len({*first, *later}) == len(first) + len(later)
    assert {request.op for request in first} == set(collectives.COMMON)
    assert {request.op for request in first + later} == set(collectives.OPS)
    assert {(r.ranks, r.groups) for r in first} == {(2, 1), (4, 1), (2, 2)}
    assert all(r.ranks == 2 for r in first if r.op == "send_recv")
    assert {(r.ranks, r.groups) for r in later if r.stride == 2} == {(2, 2)}
    assert {r.op for r in later if r.inside} == set(collectives.EITHER_WAY)
    assert any(r.message_bytes == 12345 and r.groups == 2 for r in first)
    assert collectives.essential(1) == []


@pytest.mark.parametrize("most", [2, 4, 6, 8, 16])
def test_groups_at_once_share_no_rank(most: int) -> None:
    for request in collectives.essential(most) + collectives.further(most):
        members = [rank for group in request.members for rank in group]
        assert sorted(members) == list(range(request.busy))
        assert len(request.members) == request.groups
        for group in request.members:
            assert len(group) == request.ranks
            assert {b - a for a, b in itertools.pairwise(group)} == {request.stride}


def test_the_generic_grid_has_three_widths() -> None:
    found = grid.generic_requests("fp32")
    assert len({request.key for request in found}) == len(found)
    assert {r.dims["width"] for r in found if r.kind == "layernorm"} == set(grid.WIDTHS)


def test_questions_name_what_is_wrong() -> None:
    assert question.numbers("--tp", "1, 2,2") == (1, 2)
    for text in ("", "1,x", "0", "-1"):
        with pytest.raises(InputError, match="--tp"):
            question.numbers("--tp", text)
    for text in ("60", "0s", "-5min"):
        with pytest.raises(InputError, match="--budget"):
            question.seconds("--budget", text)
    with pytest.raises(InputError, match="fp8"):
        question.ask(None, 128, "1", "1", "fp8")


def test_the_command_writes_a_profile(tmp_path: Path) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)
    commands.register(app)
    path = tmp_path / "profile.json"
    arguments = ["profile", "-o", str(path), "--budget", "1ms", "--format"]
    shown = CliRunner().invoke(app, [*arguments, "table"])
    assert shown.exit_code == 0, shown.output
    assert "left out" in shown.stdout
    printed = CliRunner().invoke(app, [*arguments, "json"])
    assert printed.exit_code == 0, printed.output
    assert Profile.model_validate_json(printed.stdout) == documents.load(Profile, path)
