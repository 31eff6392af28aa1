"""Family: where the parts of a kind of user's module are, and what tensor parallelism cuts in it.

Names are paths from the module, and from a layer. A path that ends so counts: `o_proj` means every
`....o_proj` of a layer.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cuts:
    """What is cut over t ranks in one layer.

    enters: blocks whose stream (and memory) is gathered from the ranks' rows. columns: products
    that are cut by their outputs. fused: products that are three such side by side. rows: cut by
    their inputs, their sums reduced and scattered. counted: numbers of heads or columns that the
    code of the layer keeps. biases: tables [buckets, heads].
    """

    enters: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    fused: tuple[str, ...] = ()
    counted: tuple[str, ...] = ()
    biases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Family:
    """layers: of the only stack or the encoder. norm: behind the last layer. decoder_layers,
    decoder_norm: of a second stack. heads: the last projection, by the module's class; transform,
    pooler: what stands before it in some. positions, types, table_norm: of the embedding.
    rotary: makes cosines and sines.
    """

    tokens: str
    layers: str
    cuts: Cuts
    heads: dict[str, str]
    positions: str | None = None
    types: str | None = None
    table_norm: str | None = None
    norm: str | None = None
    rotary: str | None = None
    transform: str | None = None
    pooler: str | None = None
    decoder_layers: str | None = None
    decoder_norm: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """Of all parts but the heads."""
        tables = self.tokens, self.positions, self.types, self.table_norm
        stacks = self.layers, self.norm, self.decoder_layers, self.decoder_norm
        found = (*tables, *stacks, self.transform, self.pooler)
        return tuple(path for path in found if path is not None)


LLAMA = Cuts(
    enters=("self_attn", "mlp"),
    columns=("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"),
    rows=("o_proj", "down_proj"),
)

FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        tokens="transformer.wte",
        positions="transformer.wpe",
        layers="transformer.h",
        norm="transformer.ln_f",
        heads={"GPT2LMHeadModel": "lm_head"},
        cuts=Cuts(
            enters=("attn", "mlp"),
            columns=("mlp.c_fc",),
            rows=("c_proj",),
            fused=("attn.c_attn",),
            counted=("attn.split_size",),
        ),
    ),
    "llama": Family(
        tokens="model.embed_tokens",
        layers="model.layers",
        norm="model.norm",
        rotary="model.rotary_emb",
        heads={
            "LlamaForCausalLM": "lm_head",
            "Qwen2ForCausalLM": "lm_head",
        },
        cuts=LLAMA,
    ),
    "bert": Family(
        tokens="bert.embeddings.word_embeddings",
        positions="bert.embeddings.position_embeddings",
        types="bert.embeddings.token_type_embeddings",
        table_norm="bert.embeddings.LayerNorm",
        layers="bert.encoder.layer",
        transform="cls.predictions.transform",
        pooler="bert.pooler.dense",
        heads={
            "BertForMaskedLM": "cls.predictions.decoder",
            "BertForSequenceClassification": "classifier",
            "BertForTokenClassification": "classifier",
        },
        cuts=Cuts(
            enters=("attention.self", "intermediate"),
            columns=("self.query", "self.key", "self.value", "intermediate.dense"),
            rows=("output.dense",),
        ),
    ),
    "t5": Family(
        tokens="shared",
        layers="encoder.block",
        norm="encoder.final_layer_norm",
        decoder_layers="decoder.block",
        decoder_norm="decoder.final_layer_norm",
        heads={"T5ForConditionalGeneration": "lm_head"},
        cuts=Cuts(
            enters=("SelfAttention", "EncDecAttention", "DenseReluDense"),
            columns=("q", "k", "v", "wi", "wi_0", "wi_1"),
            rows=("o", "wo"),
            counted=("n_heads", "inner_dim"),
            biases=("relative_attention_bias",),
        ),
    ),
}
"""By the name of the family; written for transformers 5.23."""


def family_of(class_name: str) -> str | None:
    """The family of a module's class, None for an unknown one."""
    return next((name for name, each in FAMILIES.items() if class_name in each.heads), None)


def known() -> str:
    """All classes, for a message."""
    return ", ".join(name for family in FAMILIES.values() for name in family.heads)
