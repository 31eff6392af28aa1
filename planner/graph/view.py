"""RankView: what one rank sees of the model. The rules by which a layout shards dims.

Symbols: b sequences of a microbatch, s tokens per sequence, t tensor-parallel degree, c
context-parallel degree, e expert-parallel degree, x expert-tensor-parallel degree.

    tokens    between tensor-parallel blocks b*s/c/t with sequence parallelism, b*s/c without;
              inside a block b*s/c
    heads, kv_heads, ffn   /t inside a block
    vocabulary             ceil(V/t) rows
    experts                E/e of them, each with ffn/x columns, for b*s/c/t * per_token * x tokens
                           (balanced routing)

(Megatron-LM, Shoeybi et al. 2019, Korthikanti et al. 2022; Liu et al. 2023 for rings of keys;
Jacobs et al. 2023 for all-to-all of heads.) Attention alone sees all keys: by a ring of keys
and values, by an all-to-all that turns s/c tokens of all heads into all tokens of heads/c, or
by gathering keys and values.
"""

from dataclasses import dataclass, replace
from typing import Literal

from planner.spec.divisors import not_divided
from planner.spec.layer import Attention, Experts
from planner.spec.model import ModelSpec
from planner.spec.runtime import ContextStyle
from planner.spec.workload import DTYPE_BYTES

Task = Literal["train", "prefill", "decode"]


@dataclass(frozen=True, slots=True)
class RankView:
    """Sizes of a microbatch on one rank. RankView(b, s) is the unsharded model.

    seq: tokens per sequence of the main stack, of all cp ranks together; source: of the encoder
    of two stacks (see encoder_view). cached: tokens that the key-value cache holds before these.
    flash: attention never stores its scores. fused_norms: one kernel per norm; where an RMS norm
    is made of elementary operators (torch on CPUs), it keeps input and normalised input in fp32,
    and attention that stores its scores works in fp32 too.
    fused_gate: one kernel per gated activation, which makes the activated gate again.
    copies_keys_values: attention whose heads have their own keys each keeps keys and values twice.
    pads_experts: the rows of each expert are copied to a multiple of what its products need, and
    back. fused_expert_bias: the bias behind an expert is added by its product.
    quantized_inputs: products of layers keep their inputs for the backward in one byte an element.
    task: train has a backward; prefill fills the cache with a prompt; decode adds one token to
    each sequence (seq is 1 then).
    """

    batch: int
    seq: int
    tp: int = 1
    sequence_parallel: bool = True
    flash: bool = True
    fused_norms: bool = True
    fused_gate: bool = False
    copies_keys_values: bool = False
    pads_experts: bool = False
    fused_expert_bias: bool = True
    quantized_inputs: bool = False
    dtype: str = "bf16"
    source: int | None = None
    cp: int = 1
    cp_style: ContextStyle = "ring"
    ep: int = 1
    etp: int = 1
    task: Task = "train"
    cached: int = 0

    @property
    def rows(self) -> int:
        """Tokens inside a tensor-parallel block."""
        return self.batch * self.seq // self.cp

    @property
    def outer_rows(self) -> int:
        """Tokens of the residual stream on this rank."""
        return self.rows // self.tp if self.sequence_parallel else self.rows

    @property
    def keys(self) -> int:
        """Tokens that a query of the last position may attend to."""
        return self.cached + self.seq

    @property
    def element_bytes(self) -> int:
        """Bytes of one activation or weight."""
        return DTYPE_BYTES[self.dtype]

    def part(self, whole: int) -> int:
        """The share of a width on this rank: the largest share when it does not divide."""
        return -(-whole // self.tp)


def encoder_view(model: ModelSpec, view: RankView) -> RankView:
    """The view of the encoder of two stacks: its tokens are the source's, nothing is cached.

    Without a source there are as many as the decoder has, or as convolutions always make.
    """
    spec = model.stacks[0].embedding
    usual = spec.max_positions if spec.convolutions else view.seq
    return replace(view, seq=usual if view.source is None else view.source, cached=0)


def tp_problem(model: ModelSpec, seq_len: int, tp: int, sequence_parallel: bool) -> str | None:
    """Why a model cannot be split over tp ranks, or None if it can."""
    if tp == 1:
        return None
    for key, value in tp_dims(model):
        if value % tp:
            return not_divided(f"tp={tp}", tp, key, value)
    if sequence_parallel and seq_len % tp:
        return not_divided(f"tp={tp}, with sequence parallelism,", tp, "seq_len", seq_len)
    if not sequence_parallel and model.has_experts:
        return f"tp={tp} with experts needs sequence parallelism"
    return None


def tp_dims(model: ModelSpec) -> list[tuple[str, int]]:
    """(name, value) of every width that tensor parallelism divides evenly, each once."""
    found: dict[tuple[str, int], None] = {}
    for stack in model.stacks:
        for kind in stack.kinds:
            for attention in filter(None, (kind.attention, kind.cross_attention)):
                found.update(dict.fromkeys(_attention_dims(attention)))
            feed = kind.feed_forward
            mlp = feed.shared if isinstance(feed, Experts) else feed
            if mlp is not None:
                found["ffn", mlp.ffn] = None
    return list(found)


def _attention_dims(attention: Attention) -> list[tuple[str, int]]:
    return [("heads", attention.heads), ("kv_heads", attention.kv_heads)]


def cp_problem(model: ModelSpec, view: RankView) -> str | None:
    """Why a view cannot divide its sequences over cp ranks, or None if it can."""
    if view.cp == 1:
        return None
    if model.encoder is not None or not all(k.attention.causal for k in model.main.kinds):
        return f"cp={view.cp} divides causal decoders only"
    if view.seq % (view.cp * (view.tp if view.sequence_parallel else 1)):
        within = view.tp if view.sequence_parallel else 1
        return not_divided(
            f"cp={view.cp} (with tp={view.tp})", view.cp, "seq_len", view.seq, within
        )
    if view.cp_style != "all_to_all":
        return None
    for kind in model.main.kinds:
        for key, value in _attention_dims(kind.attention):
            if value % (view.cp * view.tp):
                said = f"cp={view.cp} by all-to-all with tp={view.tp}"
                return not_divided(said, view.cp, key, value, view.tp)
    return None


def ep_problem(model: ModelSpec, ep: int, etp: int) -> str | None:
    """Why a model's experts cannot be divided so, or None if they can."""
    experts = [k.feed_forward for k in model.main.kinds if isinstance(k.feed_forward, Experts)]
    if ep * etp > 1 and not experts:
        return f"ep={ep} etp={etp} divide experts, and {model.name} has none"
    for each in experts:
        if each.experts % ep:
            return not_divided(f"ep={ep}", ep, "experts", each.experts)
        if each.expert.ffn % etp:
            return not_divided(f"etp={etp}", etp, "the experts' ffn", each.expert.ffn)
    return None
