"""Overlap: what is left of communication beside compute, and of a device beside its host.

sent, computed: seconds of each alone. Where both are cut in L equal pieces and piece i of the one
needs piece i of the other, the two are a line of two machines; its first piece runs alone, then
the longer one sets the pace:

    time = first + (L - 1) * max(sent, computed) / L + last
    exposed = sent - (1 - 1/L) * min(sent, computed)  =  max( sent/L, sent - (1 - 1/L) computed )

for gradients that are reduced as layers finish, for weights that are gathered layer by layer and
for products that start with the tokens that are there. A ring of keys on c ranks passes them on
while it attends to those it has: step i of c - 1 hides behind block i of c equal blocks, and the
gradients, which go round once more, come home alone:

    exposed = sent - min( steps up to the (c-1)-th, (1 - 1/c) * attention )

(Liu et al. 2023). Tokens that are dealt out to experts while another microbatch computes (DualPipe)
hide behind all of it, which takes DEALING longer meanwhile. All of it assumes equal pieces and
links that nobody else uses.

A host that launches the kernels of a layer in `host` seconds and a device that takes `device`,
both of which wait `latency` for messages (no more than the device takes; planner.cost.exchange says
for which):

    both = latency + ((device - latency)**4 + host**4)**(1/4)

The 4-norm is fitted: it was better than the maximum on measured runs of small layers.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Seconds = TypeVar("Seconds", float, Floats)

CORNER = 4
"""Fitted: by hand on vTrain; 8 and 16 were tried too (docs/validation.md)."""

DEALING = 20 / 112
"""Of 132 multiprocessors 20 deal out tokens, 112 compute (DeepSeek-V3's report, section 3.2.2)."""


def exposed(sent: Seconds, computed: Seconds, pieces: Seconds) -> Seconds:
    """Seconds of communication that compute in as many equal pieces does not hide."""
    result: Seconds = sent - (1 - 1 / pieces) * np.minimum(sent, computed)
    return result


def ring_hidden(steps: Seconds, attention: Seconds, ranks: Seconds) -> Seconds:
    """Seconds of a ring's first ranks - 1 steps that hide behind attention, block by block."""
    result: Seconds = np.minimum(steps, (1 - 1 / ranks) * attention)
    return result


def launched(device: Seconds, host: float, latency: Seconds) -> Seconds:
    """Seconds of a layer that its host launches: the slower of both, rounded at the corner."""
    if host <= 0:
        return device
    common = np.minimum(latency, device)
    result: Seconds = common + ((device - common) ** CORNER + host**CORNER) ** (1 / CORNER)
    return result
