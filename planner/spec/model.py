"""ModelSpec: what is computed, and nothing about where or how it is divided.

    tokens, patches or sound -> embedding -> stack of layers (-> norm) -> head -> loss

A model has one stack, or two: an encoder and a decoder that reads its output through
cross-attention. Layers of a stack repeat few kinds in any order.
"""

from typing import Literal, Self

import pydantic

from planner.spec.documents import Document, Frozen
from planner.spec.layer import Experts, LayerSpec

Norm = Literal["layernorm", "rmsnorm"]
Positions = Literal["learned", "frozen", "none"]
HeadKind = Literal["language_model", "sequence_classification", "token_classification", "none"]
StackName = Literal["encoder", "decoder"]


class Convolution(Frozen):
    """A convolution before the first layer: channels * kernel inputs make one hidden vector.

    kernel: elements of one channel that an output sees (patch height * width for images).
    stride: how many positions of its input one output stands for along the sequence.
    activated: a GELU follows.
    """

    channels: int = pydantic.Field(ge=1)
    kernel: int = pydantic.Field(ge=1)
    stride: int = pydantic.Field(default=1, ge=1)
    activated: bool = False


class Embedding(Frozen):
    """What stands before the first layer of a stack.

    vocab: rows of the token table, None where convolutions make the vectors. width: columns of
    the table, None for hidden; another width is projected to hidden. max_positions: the longest
    sequence. positions: a learned or frozen vector per position (max_positions +
    position_offset rows), or none (rotary, relative). token_types: rows of a second table.
    norm: a norm over the sum. class_token: one learned vector in front. shared_table: the token
    table is the encoder's.
    """

    vocab: int | None = pydantic.Field(default=None, ge=2)
    width: int | None = pydantic.Field(default=None, ge=1)
    max_positions: int = pydantic.Field(ge=1)
    positions: Positions = "none"
    position_offset: int = pydantic.Field(default=0, ge=0)
    token_types: int = pydantic.Field(default=0, ge=0)
    norm: bool = False
    convolutions: tuple[Convolution, ...] = ()
    class_token: bool = False
    shared_table: bool = False

    @pydantic.model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.vocab is None) != bool(self.convolutions):
            raise ValueError("give either vocab (a token table) or convolutions (patches, sound)")
        if self.vocab is None and (self.width is not None or self.shared_table):
            raise ValueError("width and shared_table belong to a token table, and there is none")
        return self

    @property
    def position_rows(self) -> int:
        """Rows of the position table, 0 without one."""
        return 0 if self.positions == "none" else self.max_positions + self.position_offset


class Stack(Frozen):
    """Layers in a row. kinds: the distinct layers; order: the kind of each layer, first to last.

    final_norm: a norm after the last layer.
    """

    name: StackName
    embedding: Embedding
    kinds: tuple[LayerSpec, ...] = pydantic.Field(min_length=1)
    order: tuple[int, ...] = pydantic.Field(min_length=1)
    final_norm: bool = True

    @pydantic.model_validator(mode="after")
    def _order_names_kinds(self) -> Self:
        if set(self.order) != set(range(len(self.kinds))):
            raise ValueError(
                f"order must name each of the {len(self.kinds)} kinds (0 .. "
                f"{len(self.kinds) - 1}) and no other; it names {sorted(set(self.order))}"
            )
        return self


class Head(Frozen):
    """What stands after the last layer.

    classes: vocabulary or labels, 0 for kind none. width: what the last norm is projected to
    before the classes, None for hidden. transform: a dense layer, its activation and a norm in
    front (masked language models). pooler: a dense layer and tanh on one token of each
    sequence. bias: on the last matrix. mtp_layers: layers that predict further tokens in
    training (DeepSeek-V3: two norms, a 2h x h matrix, a layer like the last one, a norm; table
    and head are shared).
    """

    kind: HeadKind = "language_model"
    classes: int = pydantic.Field(default=0, ge=0)
    width: int | None = pydantic.Field(default=None, ge=1)
    transform: bool = False
    pooler: bool = False
    bias: bool = False
    mtp_layers: int = pydantic.Field(default=0, ge=0)

    @pydantic.model_validator(mode="after")
    def _classes_fit(self) -> Self:
        if (self.kind == "none") == bool(self.classes):
            raise ValueError(f"classes={self.classes} does not go with kind={self.kind!r}")
        return self


class ModelSpec(Document):
    """A Transformer of one stack or two.

    hidden: width of the residual stream. norm_affine: the norms have learned factors.
    tied_embeddings: the last matrix of the head is the token table.
    published_parameters: the count the authors print, if they do; published_buffers: how many of
    them are numbers that are not trained.
    """

    SCHEMA = "architecture/1"

    name: str
    family: str
    hidden: int = pydantic.Field(ge=1)
    stacks: tuple[Stack, ...] = pydantic.Field(min_length=1, max_length=2)
    head: Head
    norm: Norm
    norm_eps: float = pydantic.Field(default=1e-5, gt=0)
    norm_affine: bool = True
    tied_embeddings: bool = False
    source: str = ""
    published_parameters: int | None = None
    published_buffers: int = 0

    @pydantic.model_validator(mode="after")
    def _stacks_fit(self) -> Self:
        if len(self.stacks) == 2 and [s.name for s in self.stacks] != ["encoder", "decoder"]:
            raise ValueError("two stacks must be an encoder and then a decoder")
        reads = [any(kind.cross_attention for kind in stack.kinds) for stack in self.stacks]
        if reads[0] or (len(reads) == 2 and not reads[1]):
            raise ValueError("the decoder of two stacks, and nothing else, has cross_attention")
        if self.stacks[0].embedding.shared_table:
            raise ValueError("stacks.0.embedding.shared_table: the first stack has no other table")
        if self.tied_embeddings:
            table = self.stacks[-1].embedding
            widths = (table.width or self.hidden, self.head.width or self.hidden)
            if table.vocab != self.head.classes or widths[0] != widths[1]:
                raise ValueError(
                    f"tied_embeddings: the table is {table.vocab} x {widths[0]}, the head "
                    f"{self.head.classes} x {widths[1]}; they must be equal"
                )
        return self

    @property
    def encoder(self) -> Stack | None:
        """The stack that the decoder reads, if there are two."""
        return self.stacks[0] if len(self.stacks) == 2 else None

    @property
    def main(self) -> Stack:
        """The stack before the head: the decoder, or the only one."""
        return self.stacks[-1]

    @property
    def layers(self) -> int:
        """Layers of all stacks."""
        return sum(len(stack.order) for stack in self.stacks)

    @property
    def has_experts(self) -> bool:
        """Whether any layer is a mixture of experts."""
        return any(isinstance(k.feed_forward, Experts) for s in self.stacks for k in s.kinds)

    @property
    def order(self) -> tuple[tuple[int, int], ...]:
        """(stack, kind) of every layer, first to last."""
        return tuple((i, kind) for i, stack in enumerate(self.stacks) for kind in stack.order)

    @property
    def layer(self) -> LayerSpec:
        """The layer of a model that has only one kind (check `uniform` first)."""
        assert self.uniform, f"{self.name} has several kinds of layers"
        return self.main.kinds[0]

    @property
    def uniform(self) -> bool:
        """One stack with one kind of layer."""
        return len(self.stacks) == 1 and len(self.main.kinds) == 1

    @property
    def vocab(self) -> int:
        """Rows of the main stack's token table (0 without one)."""
        return self.main.embedding.vocab or 0

    @property
    def max_positions(self) -> int:
        """The longest sequence of the main stack."""
        return self.main.embedding.max_positions
