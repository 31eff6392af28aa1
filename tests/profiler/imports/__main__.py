"""Rewrite the goldens: `python -m tests.profiler.imports`, then review the diff."""

from tests.profiler.imports.cases import GOLDEN, answers, text

GOLDEN.write_text(text(answers()))
