"""Prediction: the most likely token of every position, from logits that are divided over tp.

    rank r holds columns start_r .. of the logits;  m_r, i_r: its largest and where
    m = max_r m_r;   token = min over ranks with m_r = m of i_r

Two all-reduces (maximum) of one number per position; equal logits go to the lower token, as in one
process.
"""

import torch
from torch import Tensor

from executor.parallel import collectives
from executor.parallel.mesh import Mesh
from planner.spec.model import Head


def most_likely(logits: Tensor, head: Head, mesh: Mesh) -> Tensor:
    """[b, s, columns of the rank] -> [b, s], the same on every tp rank.

    Heads of classes are not divided; there a rank has the rows that it has [b, s / tp, classes].
    """
    if mesh.tp is None or head.kind != "language_model":
        return logits.argmax(dim=-1)
    each = -(-head.classes // mesh.layout.tp)
    found, index = logits.max(dim=-1)
    largest = found.double()
    overall = largest.clone()
    collectives.all_reduce_max(overall, mesh.tp)
    index = index + each * mesh.coordinate("tp")
    lowest = torch.where(largest == overall, -index, torch.full_like(index, -head.classes))
    collectives.all_reduce_max(lowest, mesh.tp)
    return -lowest
