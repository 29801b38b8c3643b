"""`quantize_act` and what can stand before it on the compiled kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..quantize_act import quantize_act as op
from .operands import DTYPE_CODE, addresses, dense, one_half_dtype, stream_of

# The order of the C++ enum ActFormat: by format and its flag, unsigned or four_over_six.
FORMAT_CODE = {
    ("int4", False): 0,
    ("int4", True): 1,
    ("nvfp4", False): 2,
    ("nvfp4", True): 3,
    ("int8", False): 4,
    ("fp8", False): 5,
}
MAX_RANK = 128
HOPPER = (9, 0)
ROWS_FILE, CLUSTERS_FILE = "smxx_quantize_act", "sm90_quantize_act"
# With fewer rows or columns its blocks have too little to do for what they prepare; those of more do not keep all they need of K
# in their shared memory, by the ranks that there is room for.
CLUSTERS_LEAST_ROWS, CLUSTERS_LEAST_COLUMNS, CLUSTERS_MOST_COLUMNS = 256, 1024, {0: 40960, 32: 15360, 64: 8192}
COLUMNS_EACH = 16  # of a thread


@dataclass(frozen=True)
class Quantization:
    """The arguments of `quantize_act` that follow x."""

    smooth: Tensor | None
    proj_down: Tensor | None
    format: str
    shift: float = 0.0
    unsigned: bool = False
    segments: int = 1
    four_over_six: bool = False

    @property
    def rank(self) -> int:
        return 0 if self.proj_down is None else self.proj_down.shape[1]

    def reason_against(self, x: Tensor, **companions: Tensor | None) -> str | None:
        """x [..., K]; companions: other tensors that the kernel reads as x's dtype."""
        companions |= {"smooth": self.smooth, "proj_down": self.proj_down}
        dtypes = {name: None if tensor is None else tensor.dtype for name, tensor in companions.items()}
        if reason := one_half_dtype(x=x.dtype, **dtypes):
            return reason
        width = x.shape[-1] // self.segments
        if not x.numel() or width % COLUMNS_EACH:
            needed = f"x must not be empty and its segments a multiple of {COLUMNS_EACH} columns"
            return f"{needed}, got {list(x.shape)} in {self.segments}"
        if self.rank % 4 or self.rank > MAX_RANK:
            return f"the rank must be a multiple of 4 up to {MAX_RANK}, got {self.rank}"
        return None

    def run(
        self, kernels: ModuleType, name: str, x: Tensor, norm: Callable[..., Any] | None = None, **read: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Launch the kernel `name` on x [M, K], dense. norm: its second argument, made from the addresses of `read`."""
        rows, columns = x.shape
        options = self.format, self.shift, self.unsigned, self.segments, self.four_over_six
        qx, ascales, low_rank_act = op.fake(x, self.smooth, self.proj_down, *options)
        tensors = {"x": x, "smooth": dense(self.smooth), "proj_down": dense(self.proj_down)}
        tensors |= {"qx": qx, "ascales": ascales, "low_rank_act": low_rank_act}
        # Named, because a copy must outlive the launch that reads it.
        copies = {key: dense(tensor) for key, tensor in read.items()}
        pointers = addresses(kernels, **tensors, **copies)
        code = FORMAT_CODE[self.format, self.unsigned or self.four_over_six]
        arguments = kernels.QuantizeArguments(
            *pointers[: len(tensors)], rows, ascales.shape[1], columns, self.rank, self.segments, self.shift, code
        )
        before = () if norm is None else (norm(*pointers[len(tensors) :]),)
        getattr(kernels, name)(arguments, *before, DTYPE_CODE[x.dtype], stream_of(x))
        return qx, ascales, low_rank_act


def quantize_act_rejects(x, *quantize_args) -> str | None:
    return Quantization(*quantize_args).reason_against(x)


def by_rows(kernels, x, *quantize_args) -> tuple[Tensor, Tensor, Tensor]:
    return Quantization(*quantize_args).run(kernels, "quantize_act", dense(x))


def by_clusters(kernels, x, *quantize_args) -> tuple[Tensor, Tensor, Tensor]:
    return Quantization(*quantize_args).run(kernels, "sm90_quantize_act", dense(x))


def clusters_reject(x, *quantize_args) -> str | None:
    """Of a call that quantize_act takes."""
    wanted = Quantization(*quantize_args)
    if wanted.format not in ("int8", "fp8") or wanted.segments > 1 or wanted.shift:
        return "8-bit codes with one scale for each token and no shift needed"
    ranks = (wanted.rank + 31) // 32 * 32
    if wanted.rank % 8 or ranks not in CLUSTERS_MOST_COLUMNS:
        return f"a rank that is a multiple of 8 up to {max(CLUSTERS_MOST_COLUMNS)} needed, got {wanted.rank}"
    rows, columns = x.shape
    if rows < CLUSTERS_LEAST_ROWS or not CLUSTERS_LEAST_COLUMNS <= columns <= CLUSTERS_MOST_COLUMNS[ranks]:
        needed = f"{CLUSTERS_LEAST_ROWS} rows of {CLUSTERS_LEAST_COLUMNS} to {CLUSTERS_MOST_COLUMNS[ranks]} columns"
        return f"at least {needed} needed for rank {wanted.rank}, got {[rows, columns]}"
    return None


def chooses_clusters(x: Tensor, *quantize_args) -> bool:
    """Whether x lies on sm_90 and the kernel made for it takes the call."""
    on_hopper = x.is_cuda and torch.cuda.get_device_capability(x.device) == HOPPER
    return on_hopper and clusters_reject(x, *quantize_args) is None


def quantize_act(kernels, x, *quantize_args) -> tuple[Tensor, Tensor, Tensor]:
    run = by_clusters if chooses_clusters(x, *quantize_args) else by_rows
    return run(kernels, x, *quantize_args)


def quantize_act_file(*args) -> str:
    return CLUSTERS_FILE if chooses_clusters(*args) else ROWS_FILE


def norm_quantize_rejects(x, norm, eps, weight, bias, mod_scale, mod_shift, *quantize_args) -> str | None:
    companions = {"weight": weight, "bias": bias, "mod_scale": mod_scale, "mod_shift": mod_shift}
    return Quantization(*quantize_args).reason_against(x, **companions)


def norm_quantize(
    kernels, x, norm, eps, weight, bias, mod_scale, mod_shift, *quantize_args
) -> tuple[Tensor, Tensor, Tensor]:
    rows_each = [1 if mod is None else x.shape[0] // mod.shape[0] for mod in (mod_scale, mod_shift)]
    return Quantization(*quantize_args).run(
        kernels, "norm_quantize", dense(x), lambda *pointers: kernels.NormArguments(*pointers, *rows_each, eps, norm == "layer"),
        weight=weight, bias=bias, mod_scale=mod_scale, mod_shift=mod_shift,
    )  # fmt: skip


def group_norm_silu_quantize_rejects(x, num_groups, eps, weight, bias, silu, *quantize_args) -> str | None:
    return Quantization(*quantize_args).reason_against(x, weight=weight, bias=bias)


def group_norm_silu_quantize(
    kernels, x, num_groups, eps, weight, bias, silu, *quantize_args
) -> tuple[Tensor, Tensor, Tensor]:
    sizes = x.shape[0], x.shape[1], num_groups
    workspace = torch.empty(kernels.group_norm_workspace_floats(*x.shape), dtype=torch.float32, device=x.device)
    return Quantization(*quantize_args).run(
        kernels, "group_norm_quantize", dense(x).flatten(0, 1),
        lambda *pointers: kernels.GroupNormArguments(*pointers, *sizes, eps, silu),
        weight=weight, bias=bias, workspace=workspace,
    )  # fmt: skip
