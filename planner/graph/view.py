"""RankView: what one rank sees of the model. The rules by which a layout shards dims.

Symbols: b sequences of a microbatch, s tokens per sequence, t tensor-parallel degree.
Between tensor-parallel blocks a rank holds b*s/t tokens with sequence parallelism, b*s without;
inside a block it holds all b*s tokens of heads/t heads, ffn/t columns, and ceil(vocab/t)
rows of the vocabulary (Megatron-LM, Shoeybi et al. 2019, Korthikanti et al. 2022).
"""

from dataclasses import dataclass

from planner.spec.model import ModelSpec
from planner.spec.workload import DTYPE_BYTES


@dataclass(frozen=True, slots=True)
class RankView:
    """Sizes of a microbatch on one rank. RankView(b, s) is the unsharded model.

    flash: attention never stores its scores. fused_norms: one kernel per norm; where an RMS norm
    is made of elementary operators (torch on CPUs), it keeps input and normalised input in fp32.
    """

    batch: int
    seq: int
    tp: int = 1
    sequence_parallel: bool = True
    flash: bool = True
    fused_norms: bool = True
    dtype: str = "bf16"

    @property
    def rows(self) -> int:
        """Tokens inside a tensor-parallel block."""
        return self.batch * self.seq

    @property
    def outer_rows(self) -> int:
        """Tokens of the residual stream on this rank."""
        return self.rows // self.tp if self.sequence_parallel else self.rows

    @property
    def element_bytes(self) -> int:
        """Bytes of one activation or weight."""
        return DTYPE_BYTES[self.dtype]

    def part(self, whole: int) -> int:
        """The share of a width on this rank: the largest share when it does not divide."""
        return -(-whole // self.tp)


def tp_problem(model: ModelSpec, seq_len: int, tp: int, sequence_parallel: bool) -> str | None:
    """Why a model cannot be split over tp ranks, or None if it can."""
    for key, value in (("heads", model.heads), ("kv_heads", model.kv_heads), ("ffn", model.ffn)):
        if value % tp:
            return f"tp={tp} does not divide {key}={value}"
    if sequence_parallel and seq_len % tp:
        return f"tp={tp} does not divide seq_len={seq_len} (sequence parallelism)"
    return None
