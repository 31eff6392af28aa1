"""Isolation: user code builds and traces a module, and leaves torch as it was.

Restored: the random states of torch and Python, the default dtype and device, whether gradients
are recorded, the import path, warning filters and the log level. torch warns and logs about its
own tracing; the user is told in our words instead. What the user's code prints goes to stderr:
stdout is for the document.
"""

import contextlib
import logging
import random
import sys
import warnings
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Run a block that may change torch's global state, and undo the changes."""
    states = random.getstate(), torch.get_rng_state()
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    paths, level = list(sys.path), logging.root.manager.disable
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(sys.stderr),
            torch.enable_grad(),
        ):
            warnings.simplefilter("ignore")
            logging.disable(logging.ERROR)
            yield
    finally:
        logging.disable(level)
        sys.path[:] = paths
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(device)
        torch.set_rng_state(states[1])
        random.setstate(states[0])
