"""Rewrite the goldens: `make goldens`, then review the diff."""

from tests.golden.questions import GOLDEN, answers, text

GOLDEN.write_text(text(answers()))
