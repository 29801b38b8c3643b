"""The difference that means nothing: how far runs of the float model are from each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from .fidelity import psnr


def noise_floor(reference: Callable[[], Tensor], variants: Mapping[str, Callable[[], Tensor]]) -> dict[str, float]:
    """Median PSNR in dB of each variant, and of a repetition, against one run of `reference`: images [B, C, H, W] in [0, 1].

    Infinite means bit-identical. Typical variants: another dtype, compiled, another number of threads. A method that is as close
    to the reference as its variants are is as good as exact.
    """
    images = reference()
    runs = {"repeated": reference, **variants}
    return {name: float(psnr(run(), images).median()) for name, run in runs.items()}
