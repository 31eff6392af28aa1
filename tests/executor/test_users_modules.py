"""Users' transformers modules under a plan: the training of the whole module in one process."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.nn import functional

from executor import data, refusals
from executor.adapted import source
from executor.adapted.alike import check_alike
from executor.adapted.model import Adapted, adapt
from executor.apply import apply
from executor.parallel.mesh import close_mesh, make_mesh
from executor.processes.launch import run_plan
from executor.recorder import Recorder, make_clock
from executor.runner import Runner
from executor.states.whole import parts, whole
from executor.train import counts_loss
from planner.spec.documents import InputError
from planner.spec.huggingface.config import read_config
from planner.spec.plan import Plan
from tests.executor.plans import GLOBAL_BATCH, LEARNING_RATE, SEED, SEQ_LEN, STEPS, make_plan
from tests.executor.pool import TIMEOUT, Pool
from tests.executor.test_equality import TOLERANCE, micro_batch_of, name_of

pytest.importorskip("transformers")

from tests.executor import users

CASES = [
    ("gpt2", {"tp": 2, "pp": 2, "dp": 2, "zero": 1, "recompute": "full"}),
    ("llama", {"tp": 4, "dp": 2, "zero": 3}),
    ("bert_masked", {"tp": 2, "dp": 2, "pp": 2, "zero": 2}),
    ("bert_sequences", {"tp": 4, "dp": 2}),
    ("t5", {"tp": 2, "dp": 2, "zero": 1, "recompute": "full"}),
]


def planned(name: str, **layout: Any) -> Plan:
    fewest = 2 * layout.get("pp", 1) * layout.get("vpp", 1)
    micro_batch = micro_batch_of(GLOBAL_BATCH // layout.get("dp", 1), fewest)
    return make_plan(spec_of(name), micro_batch=micro_batch, **layout)


@functools.cache
def spec_of(name: str) -> Any:
    module: Any = users.BUILDERS[name]()
    config = module.config.to_dict() | {"architectures": [type(module).__name__]}
    return read_config(config, name, name)


@functools.cache
def reference(name: str) -> tuple[list[float], list[float], dict[str, torch.Tensor]]:
    """The user's module as it is, trained in fp64."""
    module: Any = users.BUILDERS[name]().double()
    plan, losses, norms = planned(name), [], []
    optimizer = torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE, foreach=False)
    for step in range(STEPS):
        tokens, targets = data.global_batch(plan, SEED, step)
        if plan.model.encoder is None:
            logits = module(input_ids=tokens).logits
        else:
            logits = module(input_ids=tokens[:, 0], decoder_input_ids=tokens[:, 1]).logits
        loss = functional.cross_entropy(logits.flatten(0, -2), targets.flatten())
        loss.backward()
        losses.append(loss.item())
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in module.parameters()]).item())
        optimizer.step()
        optimizer.zero_grad()
    return losses, norms, {key: value.detach() for key, value in module.named_parameters()}


def train(rank: int, plan: Plan, name: str) -> Any:
    mesh = make_mesh(plan.layout, rank, "gloo", TIMEOUT)
    if mesh is None:
        return None
    cpu = torch.device("cpu")
    module = users.BUILDERS[name]()
    share = apply(plan, mesh, cpu, SEED, LEARNING_RATE, module=module)
    runner = Runner(plan, mesh, share, cpu)
    losses, norms = [], []
    for step in range(STEPS):
        batch = data.microbatches(plan, mesh.place, SEED, step, cpu)
        loss, norm = runner.step(batch, Recorder(make_clock(cpu), lambda doing: None))
        losses.append(loss.item())
        norms.append(norm.item())
    found = parts(share.updater)
    close_mesh(mesh)
    return losses, norms, found, counts_loss(plan, mesh)


def compare(pool: Pool, name: str, layout: dict[str, Any]) -> None:
    plan = planned(name, **layout)
    refusals.check(plan)
    results = [result for result in pool.run(train, plan, name) if result is not None]
    losses, norms, weights = reference(name)
    for step in range(STEPS):
        loss = sum(result[0][step] for result in results if result[3])
        assert loss == pytest.approx(losses[step], rel=TOLERANCE)
        for result in results:
            assert result[1][step] == pytest.approx(norms[step], rel=TOLERANCE)
    names = Adapted(users.BUILDERS[name](), SEQ_LEN).user_names
    found = whole(part for result in results for part in result[2])
    assert {names[key] for key in found} == weights.keys()
    for key, value in found.items():
        expected = weights[names[key]]
        assert (value - expected).abs().max() <= TOLERANCE * expected.abs().max(), key


@pytest.mark.parametrize(
    ("name", "layout"),
    [pytest.param(*case, id=f"{case[0]}-{name_of(case[1])}") for case in CASES],
)
def test_a_divided_module_equals_the_whole_one(
    pool: Pool, name: str, layout: dict[str, Any]
) -> None:
    compare(pool, name, layout)


ALONE: list[dict[str, Any]] = [
    {"pp": 4, "dp": 2},
    *({"dp": 2, "zero": zero} for zero in (0, 1, 2, 3)),
    *({"tp": tp} for tp in (2, 4)),
    {"recompute": "full"},
    {"pp": 2, "schedule": "gpipe"},
    {"pp": 2, "vpp": 2, "schedule": "zbv", "tp": 2},
    {"tp": 2, "dp": 4, "zero": 1, "recompute": "full"},
]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ALONE, ids=name_of)
@pytest.mark.parametrize("name", users.BUILDERS)
def test_every_module_on_every_axis(pool: Pool, name: str, layout: dict[str, Any]) -> None:
    if name == "t5" and (layout.get("pp", 1) > 1 or layout.get("zero", 0) > 1):
        with pytest.raises(InputError, match="an encoder and a decoder"):
            refusals.check(planned(name, **layout))
        return
    compare(pool, name, layout)


@pytest.mark.parametrize("name", users.BUILDERS)
def test_an_adapted_module_computes_what_it_did(name: str) -> None:
    module: Any = users.BUILDERS[name]()
    tokens = torch.arange(2 * SEQ_LEN).view(2, SEQ_LEN) % 96 + 1
    if name == "t5":
        expected = module(input_ids=tokens, decoder_input_ids=tokens.flip(1)).logits
        tokens = torch.stack((tokens, tokens.flip(1)), dim=1)
    else:
        expected = module(input_ids=tokens).logits
    made = adapt(module, planned(name))
    assert torch.allclose(made(tokens), expected, rtol=1e-5, atol=1e-6)  # sums in another order
    assert set(made.user_names.values()) == {key for key, _ in module.named_parameters()}


def test_t5_with_tied_tables_scales_its_logits() -> None:
    module: Any = users.t5(tie_word_embeddings=True)
    module.config.scale_decoder_outputs = True
    tokens = torch.arange(SEQ_LEN).view(1, SEQ_LEN)
    expected = module(input_ids=tokens, decoder_input_ids=tokens).logits
    found = Adapted(module, SEQ_LEN)(torch.stack((tokens, tokens), dim=1))
    assert torch.allclose(found, expected, rtol=1e-6)


def checkpointing() -> nn.Module:
    module: Any = users.gpt2()
    module.activation_checkpointing_enable()
    return module


def frozen() -> nn.Module:
    module: Any = users.gpt2()
    module.transformer.wte.requires_grad_(False)
    return module


def hooked() -> nn.Module:
    module: Any = users.gpt2()
    module.transformer.ln_f.bias.register_hook(lambda gradient: 2 * gradient)
    return module


@pytest.mark.parametrize(
    ("made", "layout", "message"),
    [
        (lambda: nn.Linear(2, 2), {}, "Linear is not a known class; build one of GPT2LMHeadModel"),
        (lambda: users.gpt2(n_layer=2), {}, "GPT2LMHeadModel has layers=2, .* has 4; plan for"),
        (lambda: users.gpt2(vocab_size=90), {}, "has vocab=90, the plan's model gpt2 has 97"),
        (lambda: users.gpt2(resid_pdrop=0.1), {}, "resid_dropout drops out 0.1 of its values"),
        (checkpointing, {}, "checkpointing is on in transformer; .* plan with recompute=full"),
        (frozen, {}, "transformer.wte.weight has requires_grad=False, and a plan trains every"),
        (hooked, {}, "transformer.ln_f.bias has a hook, which would never be called"),
        (users.gpt2, {"cp": 2}, "layout.cp=2 is not implemented for users' modules"),
        (users.gpt2, {"recompute": "selective"}, "recompute=selective needs the attention core"),
    ],
)
def test_refused_by_name(made: Any, layout: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        adapt(made(), planned("gpt2", **layout))


def unlike(rank: int, other: int | None) -> str:
    module = nn.Linear(2, 3, dtype=torch.bfloat16)
    with torch.no_grad():
        module.weight.fill_(1.0)
        module.bias.fill_(2.0 if rank == other else -2.0)
    try:
        check_alike(module, None if other is None else dist.group.WORLD, torch.device("cpu"))
    except InputError as error:
        return str(error)
    return ""


def test_ranks_that_build_other_values_do_not_begin(pool: Pool) -> None:
    assert set(pool.run(unlike, 9)) == {""}
    (said,) = set(pool.run(unlike, 3))
    assert said.startswith("--module: bias has other values on some rank than on others; draw")
    assert unlike(0, None) == ""


def test_another_attention_is_refused() -> None:
    module: Any = users.gpt2()
    module.config._attn_implementation = "eager"
    with pytest.raises(InputError, match="build the model with attn_implementation=sdpa"):
        adapt(module, planned("gpt2"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("my.py", "write FILE.py:FUNCTION"),
        ("nowhere.py:build", "there is no Python file nowhere.py"),
        ("FILE:other", "has no function other"),
        ("FILE:number", "returned int, not a torch.nn.Module"),
        ("FILE:fails", r"my.py, line 4: ValueError: no weights"),
        ("HALF:build", r"half.py: SyntaxError: .* \(half.py, line 1\)"),
    ],
)
def test_a_wrong_source_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file, half = tmp_path / "my.py", tmp_path / "half.py"
    file.write_text(
        "def number():\n    return 3\ndef fails():\n    raise ValueError('no weights')\n"
    )
    half.write_text("def build(:\n")
    with pytest.raises(InputError, match=message):
        source.build(text.replace("FILE", str(file)).replace("HALF", str(half)), seed=0)


def test_a_users_file_runs_and_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "my.py"
    file.write_text("from tests.executor.users import gpt2\n\n\ndef build():\n    return gpt2()\n")
    plan = planned("gpt2", tp=2).replace(workload=planned("gpt2").workload.replace(dtype="fp32"))
    found = run_plan(plan, steps=2, warmup=0, module=f"{file}:build")
    losses, norms, _ = reference("gpt2")
    assert found.loss == pytest.approx(losses[:2], rel=1e-5)
    assert found.gradient_norm == pytest.approx(norms[:2], rel=1e-4)
