"""The folder in which Triton kernels find the configurations that `halfbyte tune` measured on this machine."""

from __future__ import annotations

import functools

from ...env import setting


@functools.cache
def hand_in_cache_folder() -> None:
    """Once per process: triton_kernels reads no environment."""
    from ...triton_kernels.tuning import set_cache_folder

    set_cache_folder(setting("HALFBYTE_CACHE_DIR") / "triton")
