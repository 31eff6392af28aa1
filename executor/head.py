"""Head: what stands behind the last layer, and the loss."""

from torch import Tensor, nn
from torch.nn import functional

from executor.norm import norm
from planner.spec.model import ModelSpec


class CrossEntropy(nn.Module):
    """Mean over rows of -log softmax(logits)[target]; 16-bit logits are widened to fp32."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """logits [rows, vocab], targets [rows] -> scalar."""
        return functional.cross_entropy(widened(logits), targets)


class Head(nn.Module):
    """Final norm, projection to the vocabulary, loss."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.norm = norm(spec)
        self.projection = nn.Linear(spec.hidden, spec.vocab, bias=False)
        self.loss = CrossEntropy()

    def forward(self, x: Tensor, targets: Tensor | None) -> Tensor:
        """[b, s, h] -> mean loss over all tokens; without targets the logits [b, s, vocab]."""
        if targets is None:
            return self.projection(self.norm(x))
        return self.loss(self.projection(self.norm(x)).flatten(0, 1), targets.flatten())


def widened(x: Tensor) -> Tensor:
    """A 16-bit tensor in fp32; any other as it is."""
    return x.float() if x.element_size() < 4 else x
