"""Refused: why a user's module cannot be trained under a plan, by name.

Dropout is, because every plan would draw other numbers than a single process. Parameters become
views of flat buffers, all of which are trained: hooks of theirs would be lost, and what is not to
be trained would be. What runs again is the plan's choice, not the module's. Sequences over ranks
(cp) and the attention core apart (selective) need the executor's own layers.
"""

from collections.abc import Iterator

from torch import nn

from executor.adapted.family import FAMILIES, Family, family_of, known
from executor.transformer.model import meta_model
from planner.spec.plan import Plan

DROPOUTS = ("attention_dropout", "dropout")
"""Attributes that hold a rate and are no modules."""
HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
"""Where torch keeps what a user has registered for a parameter's gradient."""


def problems(module: nn.Module, plan: Plan) -> Iterator[str]:
    """Each with the way out."""
    name = type(module).__name__
    family = family_of(name)
    if family is None:
        yield f"{name} is not a known class; build one of {known()}"
        return
    yield from _unlike(module, FAMILIES[family], plan)
    implementation = getattr(getattr(module, "config", None), "_attn_implementation", None)
    if implementation != "sdpa":
        yield f"attn_implementation={implementation}; build the model with attn_implementation=sdpa"
    for path, part in module.named_modules():
        yield from _module(path, part)
    for path, parameter in module.named_parameters():
        yield from _parameter(path, parameter)
    layout = plan.layout
    if layout.cp > 1:
        yield f"layout.cp={layout.cp} is not implemented for users' modules; plan with cp=1"
    if any(c.recompute == "selective" for stage in plan.stages for c in stage.layers):
        yield "recompute=selective needs the attention core apart; plan with none or full"


def _module(path: str, part: nn.Module) -> Iterator[str]:
    rates = [part.p] if isinstance(part, nn.Dropout) else []
    rates += [value for key in DROPOUTS if isinstance(value := getattr(part, key, 0), float)]
    if any(rate > 0 for rate in rates):
        yield (
            f"{path} drops out {max(rates):g} of its values, other ones under every plan; set "
            f"the rate to 0 in the model's configuration"
        )
    if getattr(part, "gradient_checkpointing", False):
        yield (
            f"gradient checkpointing is on in {path}; what is made again is the plan's choice: "
            f"leave it off, and plan with recompute=full"
        )


def _parameter(path: str, parameter: nn.Parameter) -> Iterator[str]:
    if not parameter.requires_grad:
        yield f"{path} has requires_grad=False, and a plan trains every parameter; leave it true"
    if any(getattr(parameter, key, None) for key in HOOKS):
        yield f"{path} has a hook, which would never be called; register none"


def _unlike(module: nn.Module, family: Family, plan: Plan) -> Iterator[str]:
    """Where the module is not the plan's model."""
    layers = len(list(module.get_submodule(family.layers).children()))
    if family.decoder_layers is not None:
        layers += len(list(module.get_submodule(family.decoder_layers).children()))
    table = module.get_submodule(family.tokens).weight
    assert isinstance(table, nn.Parameter)
    vocab, hidden = table.shape
    own = sum(_sizes(module, family).values())
    meta = meta_model(plan.model, 1)
    planned = sum(parameter.numel() for parameter in meta.parameters())
    for key, here, there in (
        ("layers", layers, plan.model.layers),
        ("hidden", hidden, plan.model.hidden),
        ("vocab", vocab, plan.model.stacks[0].embedding.vocab),
        ("parameters", own, planned),
    ):
        if here != there:
            yield (
                f"{type(module).__name__} has {key}={here}, the plan's model {plan.model.name} has "
                f"{there}; plan for the configuration of the same model"
            )


def _sizes(module: nn.Module, family: Family) -> dict[int, int]:
    """Elements of every parameter in the parts that a forward passes: without a table's tie BERT
    has a bias that stands in none."""
    parts, head = dict(module.named_modules()), family.heads[type(module).__name__]
    found = (parts.get(path) for path in (*family.paths, head))
    return {id(p): p.numel() for part in found if part is not None for p in part.parameters()}
