"""What a part's process does not survive: a fault on the GPU, after which every call fails, and a call that never ends."""

from __future__ import annotations

import contextlib
import faulthandler
import math
import time
from collections.abc import Iterator
from typing import TextIO


class DeviceLost(Exception):
    """A kernel faulted: nothing runs on the GPU in this process any more. The part goes on in another one."""


def is_lost(device: str) -> bool:
    """Whether a fault has ended all use of the device in this process; errors that leave it usable are none."""
    if device != "cuda":
        return False
    import torch

    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


class Watchdog:
    """Ends this process, its stacks written to the file, when what it watches takes longer than it may.

    A thread that waits for a kernel runs no Python, and no signal reaches it: the process is all that can be ended.
    """

    def __init__(self, file: TextIO) -> None:
        self.file, self.end = file, math.inf
        faulthandler.enable(file)

    @contextlib.contextmanager
    def watch(self, seconds: float) -> Iterator[None]:
        """The shortest of those that are nested counts."""
        outer, self.end = self.end, min(self.end, time.monotonic() + seconds)
        self._arm()
        try:
            yield
        finally:
            self.end = outer
            self._arm()

    def _arm(self) -> None:
        if math.isinf(self.end):
            faulthandler.cancel_dump_traceback_later()
        else:
            faulthandler.dump_traceback_later(max(self.end - time.monotonic(), 1), exit=True, file=self.file)
