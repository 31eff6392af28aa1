"""Prediction: the promise of one plan, from the replay, with the split of its time.

breakdown, in seconds of the bottleneck stage (the one with the largest forward + backward):

    forward, backward   m microbatches of compute
    tensor_parallel     m microbatches of collectives inside them
    pipeline            waiting: bubbles and transfers = what is left of the step
    gradients           the reduction of gradients that is not hidden
    optimizer           norm, update, gathering of weights
    stragglers          waiting for the slowest replica
    runtime             what the runtime spends per step besides
    contention          what shared cores add to the bottleneck's own work

They sum to step_seconds. The band is the calibration's.
mfu = model FLOPs / (devices * peak * step); see planner.graph.counts.
"""

from collections import Counter

import numpy as np

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.divisions import Division
from planner.cost.estimate import Estimates, estimate
from planner.graph import counts
from planner.graph.operator import Block
from planner.simulator.replay import replay
from planner.spec.calibration import UNWEIGHED, uncalibrated_band
from planner.spec.layout import Layout, Stage
from planner.spec.plan import AT_RISK, Plan, Prediction
from planner.spec.provenance import Birth, Shares
from planner.spec.spread import SAFE, Spread
from planner.spec.version import VERSION

PROFILED = (0.8, 1.25)
"""Assumed: of predictions from a profile of the very machine."""


def predict(blocks: Blocks, plan: Plan) -> Prediction:
    """Predict one plan by replay."""
    candidates = Candidates.of_plan(
        plan.layout, plan.stages, plan.workload.global_batch, plan.model
    )
    return predict_row(blocks, candidates, estimate(blocks, candidates), 0)


def planned(blocks: Blocks, layout: Layout, stages: tuple[Stage, ...]) -> Plan:
    """A plan of a question, predicted."""
    plan = Plan(
        model=blocks.model,
        cluster=blocks.cluster,
        workload=blocks.workload,
        runtime=blocks.runtime,
        profile=blocks.profile,
        calibration=blocks.calibration,
        layout=layout,
        stages=stages,
        version=VERSION,
    )
    return plan.replace(predicted=predict(blocks, plan))


def predict_row(
    blocks: Blocks, candidates: Candidates, estimates: Estimates, row: int
) -> Prediction:
    """Predict one row of a table of candidates by replay."""
    step = replay(blocks, candidates, estimates, row).step_seconds
    devices = candidates.layout(row).devices
    peak = _peak_flops(blocks)
    flops = counts.model_flops(blocks.model, blocks.workload)
    fullest = int(np.argmax(estimates.memory.total[row]))
    capacity, calibration = blocks.cluster.memory_bytes, blocks.calibration
    low, high = time_band(blocks)
    around, peak_bytes = memory_spread(blocks), float(estimates.peak_bytes[row])
    price = blocks.cluster.accelerator.price_usd_per_hour
    return Prediction(
        step_seconds=step,
        tokens_per_second_per_device=blocks.workload.tokens / step / devices,
        mfu=flops / (devices * peak * step) if peak else None,
        peak_bytes=peak_bytes,
        capacity_bytes=capacity,
        fits=peak_bytes <= capacity,
        stage_peak_bytes=tuple(float(b) for b in estimates.memory.total[row]),
        breakdown=_breakdown(blocks, candidates, estimates, row, step),
        memory=estimates.memory.of_stage(row, fullest),
        provenance=_shares(blocks, candidates, estimates, row),
        usd_per_step=None if price is None else price / 3600 * devices * step,
        low_seconds=step * low,
        high_seconds=step * high,
        at_risk=peak_bytes > AT_RISK * capacity,
        safe_peak_bytes=peak_bytes * around.quantile(SAFE),
        run_out_probability=around.share_above(capacity / peak_bytes),
        calibration=calibration.title if calibration else "",
    )


def time_band(blocks: Blocks) -> tuple[float, float]:
    """What eight of ten measured steps lie between, in predicted steps."""
    found, experts = blocks.calibration, blocks.model.has_experts
    if found is not None:
        return found.time_band(experts)
    return PROFILED if blocks.profile else uncalibrated_band(experts)


def memory_spread(blocks: Blocks) -> Spread:
    """How measured peaks lie around the predicted one."""
    return blocks.calibration.memory_spread if blocks.calibration else UNWEIGHED


def _peak_flops(blocks: Blocks) -> float | None:
    peaks = {str(k): v for k, v in blocks.cluster.accelerator.peak_flops.items()}
    return peaks.get(blocks.workload.dtype)


def _breakdown(
    blocks: Blocks, candidates: Candidates, estimates: Estimates, row: int, step: float
) -> dict[str, float]:
    times, m = estimates.times, int(candidates.microbatches[row])
    stage = int(np.argmax((times.forward + times.backward)[row]))
    tp = float((times.forward_tp + times.backward_tp)[row, stage]) * m
    parts = {
        "forward": m * float((times.forward - times.forward_tp)[row, stage]),
        "backward": m * float((times.backward - times.backward_tp)[row, stage]),
        "tensor_parallel": tp,
        "gradients": float(times.reduce[row, stage]),
        "optimizer": float(times.optimizer[row].max()),
        "stragglers": float(estimates.waits[row]),
        "runtime": blocks.runtime.step_seconds,
    }
    shared = blocks.cluster.shared_cores
    own = sum(parts.values()) - parts["runtime"] - parts["stragglers"]
    if blocks.has_network:
        own -= tp + parts["gradients"] + float(times.optimizer_sent[row].max())
    ranks = candidates.layout(row).dp * candidates.layout(row).tp
    parts["contention"] = own * (shared.factor(ranks) - 1.0) if shared else 0.0
    left = step - sum(parts.values())
    if left < 0:
        parts["contention"] += left
        left = 0.0
    return {**parts, "pipeline": left}


def _shares(blocks: Blocks, candidates: Candidates, estimates: Estimates, row: int) -> Shares:
    seconds: dict[Birth, float] = {"measured": 0.0, "fitted": 0.0, "assumed": 0.0}
    layout, m = candidates.layout(row), int(candidates.microbatches[row])
    often = Counter(blocks.model.order)
    counted: list[tuple[Block, float]] = [(kind, often[kind] / layout.pp) for kind in blocks.kinds]
    for block, count in (*counted, ("embedding", 1.0), ("head", 1.0)):
        cost = blocks.cost(block, Division.of(layout))
        for birth, value in cost.births:
            seconds[birth] += value * count * m
        exchange = (cost.forward_tp + cost.backward_tp) * count * m
        groups = layout.dp
        known = blocks.collectives.birth("all_gather", layout.tp, layout.stride("tp"), groups)
        seconds[known] += exchange
    dp = blocks.collectives.birth("all_reduce", layout.dp, layout.stride("dp"), layout.tp)
    seconds[dp] += float(estimates.times.reduce[row].max())
    if blocks.calibration is not None:
        born = blocks.calibration.provenance.birth
        assumed, seconds["assumed"] = seconds["assumed"], 0.0
        seconds[born] += assumed
    total = sum(seconds.values()) or 1.0
    return Shares(**{birth: value / total for birth, value in seconds.items()})
