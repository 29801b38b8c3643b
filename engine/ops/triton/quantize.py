"""`quantize_act` and what can stand before it in Triton: any float dtype, any K."""

from __future__ import annotations

from torch import Tensor

MAX_RANK = 128


def reason_against(x: Tensor, proj_down: Tensor | None) -> str | None:
    if not x.numel():
        return f"an empty x of shape {list(x.shape)} is left to the reference"
    rank = 0 if proj_down is None else proj_down.shape[1]
    return None if rank <= MAX_RANK else f"proj_down must have a rank of at most {MAX_RANK}, got {rank}"


def quantize_act_rejects(x, smooth, proj_down, *options) -> str | None:
    return reason_against(x, proj_down)


def norm_quantize_rejects(x, norm, eps, weight, bias, mod_scale, mod_shift, smooth, proj_down, *options) -> str | None:
    return reason_against(x, proj_down)


def group_norm_silu_quantize_rejects(x, num_groups, eps, weight, bias, silu, smooth, proj_down, *options) -> str | None:
    return reason_against(x, proj_down)


QUANTIZE_ACT = {"quantize_act": quantize_act_rejects}
NORM_QUANTIZE = {"norm_quantize": norm_quantize_rejects}
GROUP_NORM = {"group_norm_silu_quantize": group_norm_silu_quantize_rejects}
