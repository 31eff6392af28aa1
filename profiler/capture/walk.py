"""Walk: the exported graph as steps.

Nodes are visited in order. An operator whose results are all views of its inputs, or empty, is
no step: its results are values of the same store. An operator that writes into its input
becomes the store's producer, so that later readers depend on it. Blocks under torch.no_grad,
autocast and checkpoint, which the export keeps as graphs of their own, are walked in place.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from planner.spec.documents import InputError
from planner.spec.graph import UNCLASSIFIED
from profiler.capture import classify, modules, probe
from profiler.capture.probe import Answer, Prober, Question, Slot
from profiler.capture.steps import Program, Step, Store, Value, Weight
from profiler.capture.trace import DATA_WAY_OUT

Environment = dict[Any, Any]


class _Walker:
    """Visits nodes and collects steps. Its state is what the blocks it is in have switched."""

    def __init__(self, prober: Prober) -> None:
        self.prober = prober
        self.steps: list[Step] = []
        self.recording = True
        self.autocast: tuple[Any, ...] = ()

    def walk(self, graph_module: Any, known: Environment, path: str) -> Any:
        """Visit the nodes of a graph whose placeholders are known; return its outputs."""
        for node in graph_module.graph.nodes:
            if node.op == "output":
                return _filled(node.args[0], known)
            if node.op == "get_attr":
                known[node] = _attribute(graph_module, node)
            elif node.op == "call_function":
                own = modules.path_of(node)
                known[node] = self._call(node, known, path if own is None else own)
        raise AssertionError("an exported graph has an output")

    def _call(self, node: Any, known: Environment, path: str) -> Any:
        args, kwargs = _filled(node.args, known), _filled(dict(node.kwargs), known)
        if getattr(node.target, "__name__", "") == "getitem":
            return args[0][args[1]]
        graphs = [arg for arg in args if isinstance(arg, torch.fx.GraphModule)]
        if len(graphs) == 1:
            return self._block(str(node.target), graphs[0], args, path)
        made = node.meta.get("val")
        if not probe.listed(made):
            return made
        _check_tensors(node, made, path)
        if not any(tensor.numel() for tensor in probe.listed(made)):
            return _nested(made, map(_empty, probe.listed(made)))
        values = list(_values(args)) + list(_values(kwargs))
        if graphs:
            return self._unknown(node, values, made, path)
        return self._operator(node, args, kwargs, values, made, path)

    def _block(self, target: str, graph: Any, args: Any, path: str) -> Any:
        """Walk the graph of a no_grad, autocast or checkpoint block with its arguments."""
        rest = args[args.index(graph) + 1 :]
        switches = args[: args.index(graph)]
        places = [node for node in graph.graph.nodes if node.op == "placeholder"]
        with self._switched(target, switches):
            return self.walk(graph, dict(zip(places, rest, strict=True)), path)

    @contextlib.contextmanager
    def _switched(self, target: str, switches: Any) -> Iterator[None]:
        before = self.recording, self.autocast
        if "set_grad_enabled" in target:
            self.recording = bool(switches[0])
        elif "autocast" in target:
            self.autocast = tuple(switches)
        try:
            yield
        finally:
            self.recording, self.autocast = before

    def _operator(
        self, node: Any, args: Any, kwargs: Any, values: list[Value], made: Any, path: str
    ) -> Any:
        distinct = list({id(value): value for value in values}.values())
        question = _question(node.target, args, kwargs, distinct, self.recording, self.autocast)
        try:
            answer = self.prober.ask(question)
        except (RuntimeError, TypeError, ValueError):  # torch cannot call the operator alone
            return self._unknown(node, distinct, made, path)
        owners = [None if n is None else distinct[n].store for n in answer.aliases]
        writes = probe.in_place(node.target)
        results = list(zip(probe.listed(made), owners, answer.differentiable, strict=True))
        if None not in owners and not writes:
            views = [_value(t, store, follows) for t, store, follows in results if store]
            return _nested(made, iter(views))
        step = self._step(str(node.target), distinct, path, answer)
        step.outputs = [
            _made(step, tensor, store, writes, follows) for tensor, store, follows in results
        ]
        sketches = list(question.tensors)
        step.kind = classify.kind_of(node.target, sketches, answer.forward_flops)
        step.dims = classify.dims_of(step.kind, node.target, sketches, step.outputs[0].shape)
        step.kept = list(_kept(step, answer))
        return _nested(made, iter(step.outputs))

    def _unknown(self, node: Any, values: list[Value], made: Any, path: str) -> Any:
        """An operator that cannot be asked: its results are new, and gradients may pass."""
        follows = self.recording and any(value.needs_gradient for value in values)
        flags = tuple(follows and t.dtype.is_floating_point for t in probe.listed(made))
        step = self._step(str(node.target), values, path, Answer((), flags))
        step.kind = UNCLASSIFIED
        step.outputs = [
            _made(step, tensor, None, False, flag)
            for tensor, flag in zip(probe.listed(made), flags, strict=True)
        ]
        step.dims = classify.dims_of(step.kind, node.target, [], step.outputs[0].shape)
        return _nested(made, iter(step.outputs))

    def _step(self, target: str, values: list[Value], path: str, answer: Answer) -> Step:
        step = Step(
            path,
            target,
            inputs=values,
            differentiable=any(answer.differentiable),
            sources=[(p, v.needs_gradient) for v in values for p in v.store.producers[-1:]],
            forward_flops=answer.forward_flops,
            input_gradient_flops=answer.input_gradient_flops,
            weight_gradient_flops=answer.weight_gradient_flops,
            inside_bytes=sum(size for what, size in answer.kept if what == "inside"),
        )
        self.steps.append(step)
        return step


def _made(step: Step, tensor: Any, store: Store | None, writes: bool, follows: bool) -> Value:
    """A result of a step: in new memory, or in memory that it wrote into."""
    store = store or Store(tensor.untyped_storage().nbytes(), "step")
    if writes or not store.producers:
        store.producers.append(step)
        store.follows = store.follows or (writes and follows)
    return _value(tensor, store, follows)


def _empty(tensor: Any) -> Value:
    return _value(tensor, Store(0, "constant"), False)


def _value(tensor: Any, store: Store, follows: bool) -> Value:
    return Value(
        store,
        tuple(tensor.shape),
        tuple(tensor.stride()),
        tensor.dtype,
        str(tensor.device),
        follows,
    )


def _kept(step: Step, answer: Answer) -> Iterator[Store]:
    for what, number in answer.kept:
        if what == "input":
            yield step.inputs[number].store
        elif what == "output":
            yield step.outputs[number].store


def _question(
    target: Any, args: Any, kwargs: Any, values: list[Value], recording: bool, autocast: Any
) -> Question:
    place = {id(value): Slot(number) for number, value in enumerate(values)}

    def slot(value: Value) -> Slot:
        return place[id(value)]

    return Question(
        target,
        tuple(probe.replaced(args, slot, Value)),
        tuple(probe.replaced(kwargs, slot, Value).items()),
        tuple(value.sketch(recording) for value in values),
        autocast,
    )


def _filled(value: Any, known: Environment) -> Any:
    return probe.replaced(value, lambda node: known[node], torch.fx.Node)


def _values(value: Any) -> Iterator[Value]:
    if isinstance(value, Value):
        yield value
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from _values(inner)
    elif isinstance(value, dict):
        yield from _values(list(value.values()))


def _nested(made: Any, values: Iterator[Value]) -> Any:
    """The result of a node with every tensor replaced by the next value."""
    return probe.replaced(made, lambda _: next(values), torch.Tensor)


def _attribute(graph_module: Any, node: Any) -> Any:
    found = graph_module
    for part in str(node.target).split("."):
        found = getattr(found, part)
    if isinstance(found, torch.Tensor):
        return _value(found, Store(found.untyped_storage().nbytes(), "constant"), False)
    return found


def _check_tensors(node: Any, made: Any, path: str) -> None:
    """Refuse a tensor of unknown size, or without memory of its own. Raises InputError."""
    where = f"capture: {path or 'the module'}: "
    for tensor in probe.listed(made):
        if not all(isinstance(size, int) for size in tensor.shape):
            raise InputError(
                f"{where}the size of the result of {node.target} depends on the values of its "
                f"input; {DATA_WAY_OUT}"
            )
        try:
            tensor.untyped_storage()
        except NotImplementedError:  # so torch says that a tensor has no storage
            raise InputError(
                f"{where}the result of {node.target} has no memory of its own (inside of "
                f"torch.func.vmap, or sparse); call the function on the whole batch instead"
            ) from None


def program(exported: Any, module: torch.nn.Module) -> Program:
    """The steps of an exported program; module: the traced wrapper that owns the weights."""
    signature = exported.graph_signature
    weights = _weights(module)
    known: Environment = {}
    inputs: list[tuple[str, Value]] = []
    for node in exported.graph.nodes:
        if node.op != "placeholder":
            continue
        made = node.meta.get("val")
        if not isinstance(made, torch.Tensor):
            known[node] = made
            continue
        name = signature.inputs_to_parameters.get(node.name)
        weight = weights.get(name) if name else None
        known[node] = _given(made, weight, node.name in signature.user_inputs)
        if node.name in signature.user_inputs:
            inputs.append((node.name, known[node]))
    walker = _Walker(Prober())
    outputs = walker.walk(exported.graph_module, known, "")
    return Program(walker.steps, list(_values(outputs)), inputs)


def _weights(module: torch.nn.Module) -> dict[str, Weight]:
    named = module.named_parameters(remove_duplicate=False)
    return {name: Weight(id(p), p.numel(), p.requires_grad) for name, p in named}


def _given(made: Any, weight: Weight | None, given: bool) -> Value:
    size = made.untyped_storage().nbytes()
    if weight is not None:
        return _value(made, Store(size, "parameter", weight), weight.trainable)
    return _value(made, Store(size, "input" if given else "constant"), made.requires_grad)
