"""A user's file with functions that build modules, good and bad ones."""

from typing import Any

import pytest

ENTRY = """
import random
import torch
from torch import nn

def build():
    torch.manual_seed(7)
    random.seed(7)
    torch.set_default_dtype(torch.bfloat16)
    torch.set_default_device("meta")
    torch.set_default_device("cpu")
    torch.set_grad_enabled(False)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    nn.init.trunc_normal_(model[0].weight, std=0.02)
    return model, (torch.randn(2, 8),)

def keywords():
    return nn.Linear(8, 4), {"input": torch.randn(2, 8)}

def both():
    print("building")
    return nn.Bilinear(8, 8, 4), (torch.randn(2, 8),), {"input2": torch.randn(2, 8)}

def huge():
    return nn.Linear(400_000, 400_000), (torch.randn(1, 400_000),)

def alone():
    return nn.Linear(8, 4)

def number():
    return 3

def breaks():
    raise KeyError("no such key")

class Branch(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return 2 * x

def branch():
    return Branch(), (torch.randn(2),)

def reads():
    depth = int(torch.randn(3).sum().item())
    return nn.Linear(8, depth), (torch.randn(2, 8),)

class Chosen(nn.Module):
    def forward(self, x):
        return x[x > 0]

def chosen():
    return Chosen(), (torch.randn(2, 8),)

class Silent(nn.Module):
    def forward(self, x):
        return "nothing"

class Mapped(nn.Module):
    def forward(self, x):
        return torch.func.vmap(torch.sin)(x)

def mapped():
    return Mapped(), (torch.randn(2, 8),)

def silent():
    return Silent(), (torch.randn(2),)
"""


@pytest.fixture
def place(tmp_path: Any) -> Any:
    path = tmp_path / "mine.py"
    path.write_text(ENTRY)
    return lambda name: f"{path}:{name}"
