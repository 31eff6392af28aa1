"""Bridge: what joins an encoder to the decoder that reads it (Vaswani et al. 2017).

memory = [norm] encoder(E[source])         every decoder layer's cross-attention reads it
y = E'[target], ...                        the decoder's own embedding; often E' = E
"""

from torch import Tensor, nn

from executor.transformer.embedding import Embedding
from executor.transformer.norm import norm
from executor.transformer.relative_bias import RelativeBias
from planner.spec.model import ModelSpec


class Bridge(nn.Module):
    """The encoder's last norm, the decoder's embedding and relative positions.

    first: the number of the first decoder layer, counting the encoder's.
    """

    def __init__(self, spec: ModelSpec):
        super().__init__()
        encoder, decoder = spec.stacks
        self.first = len(encoder.order)
        self.norm = norm(spec) if encoder.final_norm else None
        self.embedding = Embedding(spec, decoder.embedding)
        attention = decoder.kinds[0].attention
        self.relative_bias = RelativeBias(attention) if attention.relative_buckets else None

    def end(self, x: Tensor) -> Tensor:
        """The encoder's output."""
        return x if self.norm is None else self.norm(x)

    def start(self, tokens: Tensor, encoder: Embedding) -> Tensor:
        """The decoder's stream. encoder: whose table may be the decoder's too."""
        shared = self.embedding.tokens is None
        return self.embedding(tokens, encoder.tokens if shared else None)
