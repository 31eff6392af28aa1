"""Where: which measured runs a question is about, in a small safe language.

    n_gpus <= 64 and mfu_pct >= 10
    runtime in ("nemo", "megatron-core") and not recompute == "full"
    "A100" in gpu and 1 < tp <= 8

Names are the columns of a run; values are numbers, quoted text, True and False; there are
comparisons, `in`, `and`, `or`, `not` and parentheses, and nothing else. The text is parsed, every
node is checked against that list, and nothing of it is ever executed.

A comparison with an unknown cell is unknown; `and`, `or` and `not` follow Kleene (unknown or true
is true); a run is selected only where the whole expression is true.
"""

import ast
import difflib
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from planner.spec.documents import InputError
from planner.spec.runs.run import COLUMNS, TYPES, Run

LONGEST = 2000
"""Characters of an expression."""

Truth = bool | None
Kind = Literal["number", "text", "flag"]
Test = Callable[[Run], Truth]

ORDERS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
EQUALS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
KINDS: dict[Any, Kind] = {
    str | None: "text",
    int | None: "number",
    float | None: "number",
    bool | None: "flag",
}
SYNTAX = "write comparisons of columns, joined by and, or, not: n_gpus<=64 and mfu_pct>=10"


@dataclass(frozen=True, slots=True)
class Term:
    """A column or a value: how to read it from a run, and its kind."""

    value: Callable[[Run], Any]
    kind: Kind
    shown: str


def compile_where(text: str) -> Callable[[Run], bool]:
    """The expression as a test of runs. Raises InputError for whatever is not in the language."""
    if len(text) > LONGEST:
        raise InputError(f"--where: has {len(text)} characters; write at most {LONGEST}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        test = _condition(tree.body)
    except (SyntaxError, ValueError):
        raise InputError(f"--where: {text!r} cannot be read; {SYNTAX}") from None
    except (RecursionError, MemoryError):
        raise InputError("--where: has too many parentheses; write fewer") from None
    return lambda run: test(run) is True


def _condition(node: ast.expr) -> Test:
    if isinstance(node, ast.BoolOp):
        tests = [_condition(value) for value in node.values]
        decisive = isinstance(node.op, ast.Or)
        return lambda run: _join((test(run) for test in tests), decisive)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner = _condition(node.operand)
        return lambda run: None if (found := inner(run)) is None else not found
    if isinstance(node, ast.Compare):
        return _comparison(node)
    term = _term(node)
    if term.kind != "flag":
        raise InputError(f"--where: {term.shown} alone is no condition; compare it with a value")
    return term.value


def _join(truths: Iterable[Truth], decisive: bool) -> Truth:
    """Kleene's or (decisive True) and and (decisive False)."""
    found = list(truths)
    if decisive in found:
        return decisive
    return None if None in found else not decisive


def _comparison(node: ast.Compare) -> Test:
    """a < b < c is a < b and b < c."""
    sides = [node.left, *node.comparators]
    steps = zip(sides, node.ops, sides[1:], strict=False)
    tests = [_step(left, op, right) for left, op, right in steps]
    return lambda run: _join((test(run) for test in tests), decisive=False)


def _step(left: ast.expr, op: ast.cmpop, right: ast.expr) -> Test:
    if isinstance(op, ast.In | ast.NotIn):
        member = _membership(_term(left), right)
        if isinstance(op, ast.In):
            return member
        return lambda run: None if (found := member(run)) is None else not found
    compare = ORDERS.get(type(op)) or EQUALS.get(type(op))
    if compare is None:
        raise InputError(f"--where: {_source(op)} is not offered; {SYNTAX}")
    return _compared(_term(left), compare, _term(right), ordered=type(op) in ORDERS)


def _compared(left: Term, compare: Callable[[Any, Any], bool], right: Term, ordered: bool) -> Test:
    _check_kinds(left, right)
    if ordered and "text" in (left.kind, right.kind):
        raise InputError(
            f"--where: {left.shown} and {right.shown} are text, which has no order; use == or in"
        )

    def test(run: Run) -> Truth:
        values = left.value(run), right.value(run)
        return None if None in values else compare(*values)

    return test


def _membership(left: Term, node: ast.expr) -> Test:
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        members = [_term(element) for element in node.elts]
        tests = [_compared(left, operator.eq, member, ordered=False) for member in members]
        return lambda run: _join((test(run) for test in tests), decisive=True)
    right = _term(node)
    if (left.kind, right.kind) != ("text", "text"):
        raise InputError(
            f"--where: `in {right.shown}`: write a list in parentheses, such as "
            f'model in ("a", "b"), or look for text in a column of text: "A100" in gpu'
        )

    def test(run: Run) -> Truth:
        part, whole = left.value(run), right.value(run)
        return None if part is None or whole is None else part in whole

    return test


def _check_kinds(left: Term, right: Term) -> None:
    kinds = {left.kind, right.kind}
    if "text" in kinds and len(kinds) > 1:
        text, number = (left, right) if left.kind == "text" else (right, left)
        raise InputError(
            f"--where: {text.shown} is text and {number.shown} a {number.kind}; they are never "
            f"equal. Quote text, do not quote numbers"
        )


def _term(node: ast.expr) -> Term:
    if isinstance(node, ast.Name):
        return _column(node.id)
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str):
        return _constant(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = node.operand.value if isinstance(node.operand, ast.Constant) else None
        if isinstance(inner, int | float) and not isinstance(inner, bool):
            return _constant(-inner if isinstance(node.op, ast.USub) else inner)
    raise InputError(f"--where: {_source(node)} is not offered; {SYNTAX}")


def _constant(value: bool | int | float | str) -> Term:
    kind: Kind = "text" if isinstance(value, str) else "number"
    kind = "flag" if isinstance(value, bool) else kind
    return Term(lambda _: value, kind, repr(value))


def _column(name: str) -> Term:
    if name not in TYPES:
        close = difflib.get_close_matches(name, COLUMNS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InputError(
            f"--where: no column is called {name!r}; {hint}columns are {', '.join(COLUMNS)}; "
            f"quote text"
        )
    return Term(operator.attrgetter(name), KINDS[TYPES[name]], name)


def _source(node: ast.AST) -> str:
    """The part of the expression as it was written, for messages."""
    if isinstance(node, ast.expr):
        return f"`{ast.unparse(node)}`"
    return f"`{type(node).__name__.lower()}`"
