import torch
from torch import Tensor

from executor.parallel.mesh import close_mesh, make_mesh
from executor.parallel.prediction import most_likely
from planner.spec.layout import Layout
from planner.spec.model import Head
from tests.executor.pool import TIMEOUT, Pool

CLASSES = 7


def logits() -> Tensor:
    """Small integers, so that most rows have several largest."""
    return torch.randint(0, 3, (4, 5, CLASSES), generator=torch.Generator().manual_seed(0)).float()


def predict(rank: int, layout: Layout) -> list[list[int]] | None:
    mesh = make_mesh(layout, rank, "gloo", TIMEOUT)
    if mesh is None:
        return None
    each = -(-CLASSES // layout.tp)
    first = each * mesh.coordinate("tp")
    found = most_likely(logits()[..., first : first + each], Head(classes=CLASSES), mesh)
    close_mesh(mesh)
    return found.tolist()


def test_the_lowest_of_the_largest_wins_however_columns_are_divided(pool: Pool) -> None:
    whole = logits()
    expected = (whole == whole.amax(dim=-1, keepdim=True)).int().argmax(dim=-1).tolist()
    for tp in (1, 2, 4):
        found = pool.run(predict, Layout(tp=tp))[:tp]
        assert found == [expected] * tp
