"""Learning rate: a linear warm-up, then half a cosine down to a tenth (Loshchilov and Hutter 2017,
with the floor that language models are usually given; Hoffmann et al. 2022).

    t < w   peak (t + 1) / w
    else    peak (f + (1 - f) (1 + cos(pi (t - w) / (n - w))) / 2),    f = FLOOR

t: step, w: warm-up steps, n: all steps. It depends on the step alone, so a training that is
resumed under another plan goes on as if it had never stopped.
"""

import math

FLOOR = 0.1


def rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """The learning rate of a step."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(steps - warmup, 1)
    return peak * (FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * done)) / 2)
