"""Layer: attention, cross-attention and feed-forward part, with norms and residual sums.

Where norms stand is the LayerSpec's placement (see planner.spec.layer).
"""

from collections.abc import Callable

from planner.graph.parts import elements
from planner.graph.parts.assembly import Assembly, Flow
from planner.graph.parts.attention import cross_attention, self_attention
from planner.graph.parts.feed_forward import feed_forward
from planner.graph.parts.latent import latent_attention
from planner.spec.layer import LayerSpec

Build = Callable[[str, Flow], Flow]


def layer(assembly: Assembly, spec: LayerSpec, prefix: str, before: Flow) -> Flow:
    """One layer behind a flow. Returns its end."""
    parts = _parts(assembly, spec)
    if spec.parallel:
        return _parallel(assembly, parts, prefix, before)
    flow = before
    for name, build in parts:
        flow = _part(assembly, spec, f"{prefix}{name}.", build, flow)
    return flow


def _parts(assembly: Assembly, spec: LayerSpec) -> list[tuple[str, Build]]:
    attend = latent_attention if spec.attention.latent is not None else self_attention
    parts: list[tuple[str, Build]] = [
        ("attention", lambda name, flow: attend(assembly, spec.attention, name, flow))
    ]
    if (cross := spec.cross_attention) is not None:
        parts.append(
            ("cross_attention", lambda name, flow: cross_attention(assembly, cross, name, flow))
        )
    feed = spec.feed_forward
    parts.append(("mlp", lambda name, flow: feed_forward(assembly, feed, name, flow)))
    return parts


def _part(assembly: Assembly, spec: LayerSpec, name: str, build: Build, stream: Flow) -> Flow:
    model, view = assembly.model, assembly.view
    flow = stream
    if spec.placement != "post":
        flow = assembly.add(flow, elements.norm(model, view, name + "norm"))
    ends = build(name, flow)
    if spec.placement == "sandwich":
        ends = assembly.add(ends, elements.norm(model, view, name + "norm_after"))
    total = elements.residual(model, view, name + "residual", terms=1 + len(ends))
    flow = assembly.add([*ends, *stream], total)
    if not stream:
        assembly.reads_stream(flow)
    if spec.placement == "post":
        flow = assembly.add(flow, elements.norm(model, view, name + "norm"))
    return flow


def _parallel(
    assembly: Assembly, parts: list[tuple[str, Build]], prefix: str, stream: Flow
) -> Flow:
    """Both parts read the same stream, each through its own norm."""
    model, view = assembly.model, assembly.view
    ends: list[Flow] = []
    for name, build in parts:
        own = elements.norm(model, view, f"{prefix}{name}.norm", keeps_input=not ends)
        ends.append(build(f"{prefix}{name}.", assembly.add(stream, own)))
    summed = [node for flow in ends for node in flow]
    total = elements.residual(model, view, prefix + "mlp.residual", terms=1 + len(summed))
    flow = assembly.add([*summed, *stream], total)
    if not stream:
        assembly.reads_stream(flow)
    return flow
