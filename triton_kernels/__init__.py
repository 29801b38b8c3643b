"""Triton kernels; a leaf that imports torch and triton only."""

if __name__ == "triton_kernels":  # the repository root on sys.path would shadow Triton's own package of this name
    raise ImportError("this is halfbyte.triton_kernels; start Python outside the repository root or with -P")

import os

if os.environ.get("TRITON_INTERPRET") == "1":
    from .interpreter import repair

    repair()
