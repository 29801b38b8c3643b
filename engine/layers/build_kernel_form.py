"""From a stored weight to the operands its kernels take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import OPS
from .branch import branches_of_side
from .expanded import Expanded, expand
from .expanded_each_call import ExpandedEachCall, expand_each_call
from .fold import channel_scales, fold
from .gpu_compute import OLDEST, gpu_compute
from .kernel_form import KernelForm, reason_against
from .matrix import smooth_columns
from .storage import COMPANIONS, dequantize_residual, is_companion
from .stored_rows import FOUR_BITS, outer_scale
from .streamed_form import StreamedForm

if TYPE_CHECKING:
    from .weight import LowBitWeight

RANK_MULTIPLE = 8


def for_gpu(weight: LowBitWeight, capability: tuple[int, int]) -> KernelForm | StreamedForm | Expanded | ExpandedEachCall:
    """What runs on a GPU of this compute capability: kernels, or where there are none the dense weight in the compute dtype."""
    compute = gpu_compute(weight.layer_format, capability, convolves=weight.ndim == 4)
    if compute is None:
        reason = f"kernels are made for sm_{OLDEST[0]}{OLDEST[1]} and later"
    else:
        reason = missing_kernels() or reason_against(weight, compute.activation)
    if reason:
        return (expand if weight.memory == "fast" else expand_each_call)(weight, weight.dtype, reason)
    return (kernel_form if weight.memory == "fast" else small_form)(weight, compute.activation, compute.reason)


def small_form(weight: LowBitWeight, activation: str | None, reason: str) -> KernelForm | StreamedForm | ExpandedEachCall:
    """The weight as `gpu_compute` chose, with nothing kept that is larger than what is stored."""
    stored = weight.layer_format.weight
    if activation in (None, stored):
        return kernel_form(weight, activation, reason)
    if stored in FOUR_BITS:
        return streamed_form(weight, activation, f"{reason}; unpacked at each call to save memory")
    return expand_each_call(weight, weight.dtype, f"{reason}; dequantized at each call to save memory")


def streamed_form(weight: LowBitWeight, activation: str, reason: str) -> StreamedForm:
    """4-bit storage that is folded to 8 bits at each call, its low-rank branch beside it."""
    scales = channel_scales(weight.storage, weight.layer_format, tuple(weight.shape), activation)
    outer = outer_scale(weight.storage)
    # References and CPU kernels take 16-bit companions with float32 activations: no wider copies are kept.
    companions = (tensor.dtype for name, tensor in weight.storage.items() if name in COMPANIONS)
    kernel = assemble(weight, activation, reason, weight.storage, next(companions, weight.dtype))
    return StreamedForm(kernel, scales, scales if outer is None else scales * outer, reason)


def missing_kernels() -> str | None:
    """One sentence why no GPU kernels run here, or None: one op stands for all, which one extension holds."""
    op = OPS["quantize_act"]
    reasons = [op.missing(backend) for backend in ("cuda", "triton")]
    return None if None in reasons else f"no CUDA kernels were built here ({reasons[0]})"


def kernel_form(weight: LowBitWeight, activation: str | None, reason: str) -> KernelForm:
    """The weight as `gpu_compute` chose: its stored codes where they are in that format, else folded to 8 bits."""
    if activation in (None, weight.layer_format.weight):
        return assemble(weight, activation, reason, weight.storage, weight.dtype)
    folded = fold(weight.storage, weight.layer_format, tuple(weight.shape), activation)
    tensors = {name: getattr(folded, name) for name in ("qweight", "wscales", "proj_down", "proj_up")}
    return assemble(weight, activation, reason, tensors, weight.dtype)


def assemble(
    weight: LowBitWeight, activation: str | None, reason: str, codes: Mapping[str, Tensor | None], dtype: torch.dtype
) -> KernelForm:
    """codes: the stored tensors, or what they were folded to; dtype: of smoothing, low-rank branch and INT4 scales."""
    layer_format, shape = weight.layer_format, tuple(weight.shape)
    runs_stored = activation in (None, layer_format.weight)
    down, up = padded_ranks(codes.get("proj_down"), codes.get("proj_up"), shape[0], dtype, weight.device)
    # Shifted activations are unsigned INT4; INT8 is signed and needs no shift.
    shift = layer_format.act_shift if activation == "int4" else 0.0
    tensors = {
        "qweight": codes["qweight"],
        # Those of INT4 codes; folded ones stay float32.
        "wscales": codes["wscales"].to(dtype) if is_companion("wscales", layer_format) and runs_stored else codes["wscales"],
        "wtscale": codes.get("wtscale"),
        "smooth": None if weight.smooth_factor is None else weight.smooth_factor.to(dtype),
        "proj_down": down,
        "proj_up": up,
        "shift_product": shift_product(weight, shift) if shift else None,
    }
    branches = branches_of_side(weight)
    stored = {id(tensor) for tensor in weight.storage.values()}
    made = [tensor for tensor in tensors.values() if tensor is not None and id(tensor) not in stored]
    return KernelForm(
        activation=activation,
        **tensors,
        act_shift=shift,
        four_over_six=layer_format.four_over_six and activation == "nvfp4",
        shape=shape,
        branches=branches,
        nbytes=sum(tensor.nbytes for tensor in (*made, *branches)),
        reason=reason,
    )


def padded_ranks(
    proj_down: Tensor | None, proj_up: Tensor | None, n: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor | None, Tensor]:
    """Both factors in the compute dtype, with zero ranks up to a multiple of what kernels load at once."""
    if proj_up is None or proj_down is None:
        return None, torch.empty(n, 0, dtype=dtype, device=device)
    proj_down, proj_up = proj_down.to(dtype), proj_up.to(dtype)
    missing = -proj_up.shape[1] % RANK_MULTIPLE
    return (F.pad(proj_down, (0, missing)), F.pad(proj_up, (0, missing))) if missing else (proj_down, proj_up)


def shift_product(weight: LowBitWeight, shift: float) -> Tensor:
    """What the shifted part of the activations contributes to every output: float32 [N]."""
    residual = dequantize_residual(weight.storage, weight.layer_format)
    if weight.smooth_factor is None:
        return shift * residual.sum(1)
    return residual @ (shift / smooth_columns(weight.smooth_factor, tuple(weight.shape)))
