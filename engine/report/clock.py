"""Time a pipeline call in two parts: everything, and the denoising loop alone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..models import find_denoisers


@dataclass(frozen=True)
class CallTime:
    """Seconds: of the whole call; from the first denoiser call to the decoder (the loop: denoiser, guidance and scheduler)."""

    total: float
    denoising: float


def timed_call(pipe: Any, call: Mapping[str, Any]) -> tuple[Any, CallTime]:
    """Run the pipeline once; returns its output and how long it took."""
    moments: dict[str, float] = {}

    def started(*_: Any) -> None:
        moments.setdefault("denoising", _now())

    def decoding(*_: Any) -> None:
        moments.setdefault("decoding", _now())

    handles = [model.register_forward_pre_hook(started) for model in find_denoisers(pipe).values()]
    vae = getattr(pipe, "vae", None)
    handles += [vae.decoder.register_forward_pre_hook(decoding)] if hasattr(vae, "decoder") else []
    begin = _now()
    try:
        output = pipe(**call)
    finally:
        for handle in handles:
            handle.remove()
    end = _now()
    return output, CallTime(end - begin, moments.get("decoding", end) - moments.get("denoising", begin))


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
