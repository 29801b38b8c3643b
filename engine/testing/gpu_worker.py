"""A worker of pytest-xdist that a kernel broke ends itself: then its test is named, and another worker runs the rest."""

from __future__ import annotations

import contextlib
import faulthandler
import os
from collections.abc import Iterator

import torch

# Triton compiles what a test launches first.
TEST_SECONDS = 150


@contextlib.contextmanager
def ends_when_broken(seconds: float = TEST_SECONDS) -> Iterator[None]:
    """Around one test, in a worker. After a fault every call on the GPU fails, and a kernel that never ends holds its process:
    neither Python nor a signal gets it out. Memory that the test leaves in PyTorch's cache goes back to the other workers.
    """
    faulthandler.dump_traceback_later(seconds, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        os._exit(1)
    torch.cuda.empty_cache()
