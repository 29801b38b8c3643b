"""Which attention kernel a GPU runs: a pure choice from the call's shapes and dtype and the GPU's compute capability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

KERNELS = ("flash3", "cudnn", "flash", "efficient", "math")
HALVES = (torch.float16, torch.bfloat16)
OLDEST = (8, 0)
HOPPER = (9, 0)
MAX_WIDTH = {"flash3": 256, "cudnn": 128, "flash": 256, "efficient": 65536}
WIDTH_MULTIPLE = 8


@dataclass(frozen=True)
class AttentionCall:
    """What a choice depends on. heads_each: heads of q for each head of k and v; masked: with a mask or an additive bias."""

    capability: tuple[int, int]
    dtype: torch.dtype
    width: int
    value_width: int
    tokens: int
    keys: int
    heads_each: int = 1
    masked: bool = False


@dataclass(frozen=True)
class AttentionChoice:
    """kernel: one of KERNELS; refused: (kernel, reason) for those that would have come first."""

    kernel: str
    refused: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return "; ".join([self.kernel, *(f"not {kernel}: {reason}" for kernel, reason in self.refused)])


def order(capability: tuple[int, int]) -> tuple[str, ...]:
    """The kernels in the order of their speed on a GPU."""
    if capability == HOPPER:
        return ("flash3", "cudnn", "flash", "efficient", "math")
    if capability[0] == 10:
        return ("cudnn", "flash", "efficient", "math")
    return ("flash", "cudnn", "efficient", "math")


def choose_attention(call: AttentionCall, wanted: str = "auto", absent: Mapping[str, str] = {}) -> AttentionChoice:
    """The fastest kernel that takes the call, or the wanted one.

    absent: kernel -> why this machine does not have it. Raises ValueError when the wanted kernel cannot take the call.
    """
    if wanted != "auto":
        if reason := reason_against(wanted, call, absent):
            raise ValueError(f"attention: {wanted} was asked for and cannot take this call: {reason}")
        return AttentionChoice(wanted)
    refused = []
    for kernel in order(call.capability):
        reason = reason_against(kernel, call, absent)
        if reason is None:
            return AttentionChoice(kernel, tuple(refused))
        refused.append((kernel, reason))
    raise AssertionError("math takes every call")


def reason_against(kernel: str, call: AttentionCall, absent: Mapping[str, str] = {}) -> str | None:
    """One sentence why the kernel cannot take the call, or None."""
    if kernel in absent:
        return absent[kernel]
    if kernel == "math":
        return None
    name = f"sm_{call.capability[0]}{call.capability[1]}"
    if kernel == "flash3" and call.capability != HOPPER:
        return f"it is made for sm_90, not {name}"
    if call.capability < OLDEST:
        return f"it is made for sm_80 and later, not {name}"
    if not call.tokens or not call.keys:
        return f"tokens and keys needed, got {call.tokens} and {call.keys}"
    allowed = HALVES if kernel != "efficient" else (*HALVES, torch.float32)
    if call.dtype not in allowed:
        return f"{' or '.join(map(_name, allowed))} needed, got {_name(call.dtype)}"
    if reason := _reason_against_widths(kernel, call):
        return reason
    if call.masked and kernel in ("flash3", "flash"):
        return "it takes no mask"
    if call.heads_each > 1 and kernel in ("cudnn", "efficient"):
        return f"as many heads of k as of q needed, got {call.heads_each} of q for each"
    if kernel == "cudnn" and call.keys == 1:
        return "more than 1 key needed"
    return None


def _reason_against_widths(kernel: str, call: AttentionCall) -> str | None:
    widths = (call.width, call.value_width)
    if call.width != call.value_width and kernel in ("flash3", "flash"):
        return f"one head width needed, got {call.width} and {call.value_width}"
    most = MAX_WIDTH[kernel]
    if any(width % WIDTH_MULTIPLE or not 0 < width <= most for width in widths):
        return f"head widths must be multiples of {WIDTH_MULTIPLE} up to {most}, got {call.width} and {call.value_width}"
    return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
