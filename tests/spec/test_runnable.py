"""What the executor cannot be is named by its key; the catalog's families mostly can be run."""

from typing import Any

import pytest

from planner.spec import catalog, runnable
from planner.spec.model import ModelSpec
from tests.examples import llama_like, with_attention
from tests.spec.test_plain import LATENT, two_stacks, with_embedding, with_head, with_layer

SEQ_LEN = 16
TWO_THETAS = (llama_like().layer, with_attention(llama_like(), rope_theta=1e6).layer)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (with_layer(attention=LATENT), "model.stacks.0.kinds.0.attention.latent is not"),
        (with_attention(llama_like(), window=8), "attention.window=8 is less than seq_len=16"),
        (with_attention(llama_like(), value_dim=8), "value_dim=8 differs from head_dim=4"),
        (with_attention(llama_like(), score_cap=50.0), "attention.score_cap=50.0"),
        (with_embedding(width=16), "model.stacks.0.embedding.width=16"),
        (with_embedding(positions="frozen"), "model.stacks.0.embedding.positions=frozen"),
        (with_head(kind="none", classes=0), "model.head.kind=none"),
        (with_head(classes=7), "model.head.classes=7 differs from the vocabulary 96"),
        (with_head(mtp_layers=1), "model.head.mtp_layers=1"),
        (
            with_head(kind="token_classification", pooler=True),
            "model.head.pooler=true with kind=token_classification",
        ),
        (two_stacks().replace(tied_embeddings=True), "tied_embeddings=true with two token tables"),
        (
            llama_like().replace(
                stacks=(llama_like().main.replace(kinds=TWO_THETAS, order=(0, 1)),)
            ),
            "several rotary_dim or rope_theta",
        ),
    ],
)
def test_names_what_cannot_run(spec: ModelSpec, named: str) -> None:
    (problem,) = runnable.problems(spec, SEQ_LEN)
    assert named in problem
    assert "implemented" in problem or "differs" in problem


def test_most_of_the_catalog_runs() -> None:
    found: dict[str, Any] = {
        name: list(runnable.problems(catalog.find_model(name), SEQ_LEN))
        for name in catalog.list_models()
    }
    assert {"bert-base", "t5-base", "gpt-neox-20b", "bart-large", "qwen3-8b"} <= {
        name for name, problems in found.items() if not problems
    }
    assert {"deepseek-v3", "vit-base", "marian-en-de"} <= {n for n, p in found.items() if p}
