"""The folder in which Triton kernels find the configurations that `halfbyte tune` measured on this machine."""

from __future__ import annotations

import functools
from pathlib import Path

from ...env import setting


def cache_folder() -> Path:
    return setting("HALFBYTE_CACHE_DIR") / "triton"


@functools.cache
def hand_in_cache_folder() -> None:
    """Once per process: triton_kernels reads no environment."""
    from ...triton_kernels.tuning import set_cache_folder

    set_cache_folder(cache_folder())
