"""A few questions whose answers are kept: a change of any of them must be meant."""

import json
from pathlib import Path
from typing import Any

from planner.search.optimum import rank
from planner.search.question import ask

GOLDEN = Path(__file__).parent / "plans.json"
Question = tuple[str, str, int, int]
QUESTIONS: list[Question] = [
    ("gpt2", "l40s", 1024, 64),
    ("llama3.1-8b", "h100-sxm:2", 8192, 256),
    ("llama3.1-70b", "h200-sxm:8", 8192, 512),
    ("gpt3-175b", "a100-80:64", 2048, 1536),
    ("llama3.1-405b", "h100-sxm:64", 8192, 512),
    ("gpt-1t", "h100-sxm:384", 2048, 3072),
]
LONG = {"gpt-1t"}
"""Models whose questions take half a minute: asked by the slow tests."""


def answers() -> list[dict[str, Any]]:
    """Best plan of every question, rounded to what a reader can compare."""
    return [answer(question) for question in QUESTIONS]


def answer(question: Question) -> dict[str, Any]:
    """Best plan of one question."""
    model, cluster, seq_len, batch = question
    best = rank(ask(model, cluster, seq_len, batch), top_k=1).plans[0]
    assert best.predicted is not None
    return {
        "question": f"{model} on {cluster}, seq {seq_len}, batch {batch}",
        "layout": str(best.layout),
        "stages": list(best.layer_counts),
        "step_seconds": float(f"{best.predicted.step_seconds:.6g}"),
        "peak_bytes": float(f"{best.predicted.peak_bytes:.6g}"),
        "breakdown": {k: float(f"{v:.4g}") for k, v in best.predicted.breakdown.items()},
    }


def text(values: list[dict[str, Any]]) -> str:
    """The file's text."""
    return json.dumps(values, indent=1) + "\n"
