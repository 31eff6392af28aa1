"""Runtime: the software that will execute a plan, described by its traits."""

from typing import Literal, Self, get_args

import pydantic

from planner.spec.documents import Document
from planner.spec.provenance import Provenance

Schedule = Literal[
    "gpipe", "1f1b", "interleaved", "looped-bfs", "zb-h1", "interleaved-zb", "zbv", "dualpipev"
]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
Recompute = Literal["none", "selective", "full"]
SelectiveRule = Literal["core", "products"]
Axis = Literal["tp", "cp", "ep", "dp", "pp"]
ContextStyle = Literal["ring", "all_to_all", "all_gather"]
Synchronisation = Literal["all_reduce", "parameter_server"]

RECOMPUTES: tuple[Recompute, ...] = ("none", "selective", "full")
"""Weakest first."""
CONTEXT_STYLES: tuple[ContextStyle, ...] = ("ring", "all_to_all", "all_gather")
SYNCHRONISATIONS: tuple[Synchronisation, ...] = ("all_reduce", "parameter_server")

AXES: tuple[Axis, ...] = ("tp", "cp", "ep", "dp", "pp")


def check_axis_order(value: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Return the order. Raises ValueError unless it names every axis once."""
    if sorted(value) != sorted(AXES):
        raise ValueError(f"must name each of {', '.join(AXES)} once, innermost first")
    return value


class Runtime(Document):
    """What a runtime overlaps, shards and keeps, and what it can run at all.

    schedules, zero_stages, recompute: what it offers; a plan outside them is never proposed.
    axes: the axes it divides a model over. context_styles: how it divides sequences (axis cp).
    shares_experts: it can divide one expert over several ranks (etp); experts_follow_tp: it does so
    over the ranks of tp where nobody says otherwise. chunks: the most chunks per
    rank. pipeline_zero_stages: under a pipeline the ZeRO stages that take the place of zero_stages
    (None: those of them below 2), split_zero_stages: which of these go with schedules that split
    the backward. hybrid_sharding: ZeRO within groups of replicas.
    synchronisations: how replicas agree. other_axis_orders: placements it offers besides
    axis_order. free_stages: stages may hold any number of layers, else only as stage_split cuts;
    equal_stages: all stages and chunks must hold the same number. interleaved_ranks: the fewest
    ranks that it interleaves.
    selective: what selective recomputation makes again: the attention core, or all but cores and
    every second matrix product (planner.graph.recompute).
    sends_tokens_once: the exchange of experts sends a token once to every node that has some of its
    experts (DeepEP), not once for each expert.
    overlaps_experts: the exchange of experts passes beside the compute of another microbatch.
    recompute_layers: which layers may recompute: all or none of them, the same number of every
    stage, or any number of each.
    models: "any" Transformer, or only what the executor can be (planner.spec.runnable).
    sequence_parallel: shards the activations between tp blocks along the sequence.
    overlaps_dp: reduces gradients while the last backward still computes.
    gradient_dtype: "fp32" accumulates in fp32, "same" in the workload's dtype, "fp32_of_bf16" in
    fp32 but those of fp16.
    keeps_low_precision_gradients: holds the 16-bit gradients beside the fp32 accumulator.
    master_weights: keeps an fp32 copy of half-precision weights in the optimiser.
    flash_attention: never stores the score matrix.
    recompute_stops_early: recomputation ends once the last saved tensor is back, so the last
    matrix product of a layer is not done again.
    axis_order: innermost axis first; ranks that differ only in the first axis are neighbours.
    stage_split: how it cuts the layers when nobody says (planner.cost.stage_split).
    overlaps_tp: tensor-parallel collectives run in pieces beside the products they feed (but those
    in fp4).
    overlaps_tp_backward: where a product's input is whole on every rank of tp, it is gathered again
    beside the product that makes its gradient, and that is reduced beside the weights' product.
    splits_hops: without sequence parallelism every rank of tp sends its piece of the activations
    to the next stage, where they are gathered. overlaps_p2p: between chunks (vpp) transfers pass
    while other chunks compute.
    prefetches_parameters: ZeRO 3 gathers the next layer while this one computes.
    overlap_slowdown: how much longer compute takes while communication runs beside it.
    copies_keys_values: where every head has its own keys, one tensor holds what the three products
    make; keys and values are copied out of it, and the queries, a view of it, keep it all.
    keeps_gathered_inputs: keeps what sequence parallelism gathered for the backward (else it
    gathers again). scatters_in_place: a reduced shard of the gradients stays where it lay.
    loss_passes: how often the loss reads or writes fp32 logits, forward and backward together.
    fused_norms, fused_gate: one kernel each, which keeps its 16-bit inputs only.
    pads_experts: in fp8 and fp4 the rows of each expert are copied to a multiple of what a product
    needs, and back (planner.graph.parts.feed_forward). fused_expert_bias: the bias behind an
    expert is added by its product, else by operations of their own. quantizes_inputs: in fp8 and
    fp4 the products of layers keep their quantised inputs for the backward, not those of 16 bits.
    layer_host_seconds: the floor the host needs to launch one layer forward and backward;
    expert_host_seconds: what each expert of the layer that a rank holds adds to it.
    waits_for_counts: the host waits for how many tokens each expert has (planner.cost.host).
    straggler_spread: by how much of a step equal replicas on different nodes differ.
    microbatch_seconds: what the host adds per microbatch. step_seconds: per step.
    stage_floor_seconds: where stages span nodes a layer takes no less than its launches and so much
    per tensor-parallel rank (seen in one runtime).
    activation_scale: what this runtime keeps per layer over what its operators need.
    gathered_share: how much of what tensor parallelism gathers it keeps (default all or nothing).
    logit_bytes: kept or used per logit while the loss runs.
    context_bytes: device memory outside the tensor allocator. allocator_slack: fraction of the
    tensor bytes that rounding and fragmentation may add.
    """

    SCHEMA = "runtime/1"

    name: str
    description: str = ""
    schedules: tuple[Schedule, ...]
    zero_stages: tuple[int, ...]
    recompute: tuple[Recompute, ...]
    axes: tuple[Axis, ...] = ("tp", "dp", "pp")
    context_styles: tuple[ContextStyle, ...] = ()
    shares_experts: bool = False
    experts_follow_tp: bool = False
    chunks: int = pydantic.Field(default=1, ge=1)
    pipeline_zero_stages: tuple[int, ...] | None = None
    split_zero_stages: tuple[int, ...] = (0, 1)
    hybrid_sharding: bool = False
    synchronisations: tuple[Synchronisation, ...] = ("all_reduce",)
    other_axis_orders: tuple[tuple[Axis, ...], ...] = ()
    sends_tokens_once: bool = False
    overlaps_experts: bool = False
    free_stages: bool = True
    equal_stages: bool = False
    interleaved_ranks: int = pydantic.Field(default=2, ge=2)
    selective: SelectiveRule = "core"
    recompute_layers: Literal["all", "same", "any"] = "all"
    models: Literal["any", "runnable"] = "any"
    sequence_parallel: bool
    overlaps_dp: bool
    gradient_dtype: Literal["fp32", "same", "fp32_of_bf16"]
    keeps_low_precision_gradients: bool = False
    master_weights: bool
    flash_attention: bool
    recompute_stops_early: bool
    axis_order: tuple[Axis, ...] = AXES
    stage_split: Literal["even", "cost"] = "even"
    overlaps_tp: bool = False
    overlaps_tp_backward: bool = False
    splits_hops: bool = False
    overlaps_p2p: bool = False
    prefetches_parameters: bool = False
    overlap_slowdown: float = pydantic.Field(default=0.0, ge=0, le=1)
    copies_keys_values: bool = False
    keeps_gathered_inputs: bool = True
    loss_passes: float = pydantic.Field(default=2.0, gt=0)
    scatters_in_place: bool = False
    fused_norms: bool = True
    fused_gate: bool = False
    pads_experts: bool = False
    fused_expert_bias: bool = True
    quantizes_inputs: bool = False
    layer_host_seconds: float = pydantic.Field(default=0.0, ge=0)
    expert_host_seconds: float = pydantic.Field(default=0.0, ge=0)
    waits_for_counts: bool = False
    straggler_spread: float = pydantic.Field(default=0.0, ge=0, le=1)
    microbatch_seconds: float = pydantic.Field(default=0.0, ge=0)
    stage_floor_seconds: float = pydantic.Field(default=0.0, ge=0)
    step_seconds: float = pydantic.Field(default=0.0, ge=0)
    activation_scale: float = pydantic.Field(default=1.0, gt=0)
    gathered_share: float | None = pydantic.Field(default=None, ge=0, le=1)
    logit_bytes: float | None = pydantic.Field(default=None, gt=0)
    context_bytes: float = pydantic.Field(default=0.0, ge=0)
    allocator_slack: float = pydantic.Field(default=0.0, ge=0)
    provenance: dict[str, Provenance] = {}

    @pydantic.model_validator(mode="after")
    def _equal_stages_are_not_free(self) -> Self:
        if self.equal_stages and self.free_stages:
            raise ValueError("equal_stages: equal stages are not free; write free_stages: false")
        return self

    @pydantic.field_validator("axis_order")
    @classmethod
    def _every_axis_once(cls, value: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return check_axis_order(value)

    def offered_zero(self, pp: int) -> tuple[int, ...]:
        """The ZeRO stages that it offers with so many pipeline ranks."""
        if pp == 1:
            return self.zero_stages
        if self.pipeline_zero_stages is not None:
            return self.pipeline_zero_stages
        return tuple(zero for zero in self.zero_stages if zero < 2)

    def widens_gradients(self, stored: str) -> bool:
        """Whether gradients of weights of this format accumulate in fp32."""
        return self.gradient_dtype == "fp32" or (
            self.gradient_dtype == "fp32_of_bf16" and stored != "fp16"
        )
