"""Adapted: a user's module as the Transformer that the executor divides.

    embedding    the user's tables and norm in the executor's Embedding
    layers       the user's layers, unchanged              executor.adapted.layer
    head         the user's last norm and projection in one of the executor's heads

So every plan that the executor runs for its own decoders and encoders it runs for these, with the
user's code inside the layers. What cannot be is refused by name: executor.adapted.refused.
"""

from typing import Any

import torch
from torch import Tensor, nn

from executor.adapted.family import FAMILIES, Family, family_of
from executor.adapted.layer import AdaptedBias, AdaptedLayer, Angles
from executor.adapted.refused import problems
from executor.transformer.bridge import Bridge
from executor.transformer.embedding import Embedding, LearnedPositions, TokenTypes
from executor.transformer.head import CrossEntropy, Head, Rows, SequenceClasses, TokenClasses
from executor.transformer.model import Transformer
from planner.spec.documents import InputError
from planner.spec.plan import Plan


class Adapted(Transformer):
    """A user's module, in parts. user_names: of every parameter, by the name it has here."""

    def __init__(self, module: nn.Module, tokens: int):
        nn.Module.__init__(self)
        family = FAMILIES[family_of(type(module).__name__) or ""]
        angles = None
        if family.rotary is not None:
            angles = Angles(module.get_submodule(family.rotary), tokens)
        blocks: list[nn.Module] = list(_children(module, family.layers))
        self.embedding = AdaptedEmbedding(module, family)
        self.rotary = None
        self.relative_bias: Any = _bias(blocks[0])
        self.bridge = None
        if family.decoder_layers is not None:
            decoder = list(_children(module, family.decoder_layers))
            self.bridge = AdaptedBridge(module, family, len(blocks), decoder[0])
            blocks += decoder
        layers = (AdaptedLayer(block, family.cuts, angles) for block in blocks)
        self.layers = nn.ModuleDict({str(i): layer for i, layer in enumerate(layers)})
        self.head = _head(module, family)
        names = {id(value): name for name, value in module.named_parameters()}
        self.user_names = {name: names[id(value)] for name, value in self.named_parameters()}


class AdaptedEmbedding(Embedding):
    """The user's tables, or none of their own for a decoder that reads the encoder's."""

    def __init__(self, module: nn.Module, family: Family, shared: bool = False):
        nn.Module.__init__(self)
        self.tokens = None if shared else _part(module, family.tokens)
        self.positions: Any = _table(LearnedPositions, module, family.positions)
        self.types: Any = _table(TokenTypes, module, family.types)
        self.norm = _part(module, family.table_norm)


class AdaptedBridge(Bridge):
    """Between the user's encoder and decoder."""

    def __init__(self, module: nn.Module, family: Family, first: int, block: nn.Module):
        nn.Module.__init__(self)
        self.first, self.norm = first, _part(module, family.norm)
        self.embedding = AdaptedEmbedding(module, family, shared=True)
        self.relative_bias: Any = _bias(block)


class AdaptedHead(Head):
    """Of a language model."""

    def __init__(self, module: nn.Module, norm: nn.Module | None, family: Family, name: str):
        nn.Module.__init__(self)
        self.norm, self.transform = norm, _part(module, family.transform)
        self.projection = module.get_submodule(name)
        self.loss = CrossEntropy()


class Scaled(nn.Module):
    """A norm whose outputs are scaled (T5 with tied tables: 1/sqrt(h))."""

    def __init__(self, norm: nn.Module, factor: float):
        super().__init__()
        self.inner, self.factor = norm, factor

    def forward(self, x: Tensor) -> Tensor:
        """factor * norm(x)."""
        scaled: Tensor = self.inner(x) * self.factor
        return scaled


def adapt(module: nn.Module, plan: Plan) -> Adapted:
    """A user's module as the plan's model. Raises InputError by name where that cannot be."""
    for problem in problems(module, plan):
        raise InputError(f"--module: {problem}")
    return Adapted(module, plan.workload.seq_len)


def _head(module: nn.Module, family: Family) -> Head | TokenClasses | SequenceClasses:
    name = type(module).__name__
    path = family.heads[name]
    projection = module.get_submodule(path)
    if name.endswith("ForTokenClassification"):
        tokens: TokenClasses = _classes(TokenClasses, projection, None)
        return tokens
    if name.endswith("ForSequenceClassification"):
        pooler = _part(module, family.pooler)
        sequences: SequenceClasses = _classes(SequenceClasses, projection, pooler)
        return sequences
    norm = _part(module, family.decoder_norm or family.norm)
    config: Any = module.config
    if norm is not None and getattr(config, "scale_decoder_outputs", False):
        norm = Scaled(norm, config.d_model**-0.5)
    return AdaptedHead(module, norm, family, path)


def _classes(kind: Any, projection: nn.Module, pooler: nn.Module | None) -> Any:
    head = kind.__new__(kind)
    nn.Module.__init__(head)
    head.norm, head.pooler, head.projection = None, pooler, projection
    head.rows, head.takes_last = Rows(), False
    return head


def _part(module: nn.Module, path: str | None) -> Any:
    """A part of the module, None where it has none of the name."""
    found: Any = module
    for name in path.split(".") if path is not None else ():
        found = getattr(found, name, None)
    return None if path is None else found


def _table(kind: Any, module: nn.Module, path: str | None) -> Any:
    """A table of the user's in the executor's way of reading it."""
    if path is None:
        return None
    weight = module.get_submodule(path).weight
    with torch.device("meta"):
        made = kind(*weight.shape)
    made.weight = weight
    return made


def _bias(block: nn.Module) -> AdaptedBias | None:
    found = (each for each in block.modules() if getattr(each, "has_relative_attention_bias", 0))
    attention = next(found, None)
    return None if attention is None else AdaptedBias(attention)


def _children(module: nn.Module, path: str) -> Any:
    return module.get_submodule(path)
