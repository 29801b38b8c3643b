"""An INT8 weight in the order in which one instruction set reads it, and the whole linear layer on it in one call."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...env import extension, setting

BF16_BRANCH = {torch.float32: False, torch.bfloat16: True}


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def isas() -> list[str]:
    """The instruction sets that this machine has kernels for, widest first; none without the C++ extension."""
    return extension().isas() if extension() else []


def best_isa() -> str:
    """The widest, or HALFBYTE_CPU_ISA. Raises ValueError when this machine does not have that one."""
    wanted, present = setting("HALFBYTE_CPU_ISA"), isas()
    if wanted == "auto":
        return present[0]
    if wanted not in present:
        raise ValueError(f"HALFBYTE_CPU_ISA: one of {', '.join(present)} needed on this machine, got {wanted!r}")
    return wanted


@dataclass(frozen=True)
class PackedWeight:
    """data uint8: codes, scales and the low-rank branch of a weight [N, K], for activations of `dtype`."""

    data: Tensor
    n: int
    k: int
    rank: int
    dtype: torch.dtype
    isa: str

    def linear(self, x: Tensor, smooth: Tensor | None, bias: Tensor | None) -> Tensor:
        """`gemm_w8a8` of `quantize_act` of x [M, K] -> [M, N], both of `dtype`. smooth [K] float32, contiguous; bias [N]."""
        if torch.compiler.is_compiling() or type(x) is not Tensor:
            rank, bf16 = self.rank, BF16_BRANCH[self.dtype]
            return torch.ops.halfbyte.packed_linear(x, self.data, smooth, bias, self.n, rank, bf16, self.isa)
        return packed_linear(x, self.data, smooth, bias, self.n, self.rank, BF16_BRANCH[self.dtype], self.isa)


def pack(
    qweight: Tensor,
    wscales: Tensor,
    proj_down: Tensor | None,
    proj_up: Tensor | None,
    dtype: torch.dtype,
    isa: str | None = None,
) -> PackedWeight:
    """qweight int8 [N, K] in -127..127, wscales [N], proj_down [K, R] and proj_up [N, R] or None. Raises ValueError for a bad isa."""
    module, isa = extension(), isa or best_isa()
    n, k = qweight.shape
    qweight, wscales = qweight.contiguous(), wscales.float().contiguous()
    proj_down, proj_up = (None if factor is None else factor.to(dtype).contiguous() for factor in (proj_down, proj_up))
    rank = 0 if proj_up is None else proj_up.shape[1]
    shape = module.WeightShape(n, k, rank, BF16_BRANCH[dtype])
    data = torch.empty(module.packed_bytes(isa, shape), dtype=torch.uint8)
    module.pack(isa, shape, *map(address, (qweight, wscales, proj_down, proj_up, data)))
    return PackedWeight(data, n, k, rank, dtype, isa)


def packed_linear(
    x: Tensor, data: Tensor, smooth: Tensor | None, bias: Tensor | None, n: int, rank: int, bf16: bool, isa: str
) -> Tensor:
    module, x = extension(), x.contiguous()
    bias = as_float(bias)
    m, k = x.shape
    out = torch.empty(m, n, dtype=x.dtype)
    shape = module.WeightShape(n, k, rank, bf16)
    bias_bf16 = bias is not None and bias.dtype == torch.bfloat16
    module.linear(
        isa, shape, data.data_ptr(), m, x.data_ptr(), address(smooth), address(bias), bias_bf16, out.data_ptr(), torch.get_num_threads()
    )
    return out


def as_float(tensor: Tensor | None) -> Tensor | None:
    """Contiguous, in float32 unless it is bfloat16."""
    if tensor is None or tensor.dtype in BF16_BRANCH:
        return None if tensor is None else tensor.contiguous()
    return tensor.float().contiguous()


# Compiled code reaches the kernel through the dispatcher; eager code does without it, which on small layers is a third of the time.
_library = torch.library.Library("halfbyte", "FRAGMENT")
_library.define(
    "packed_linear(Tensor x, Tensor data, Tensor? smooth, Tensor? bias, int n, int rank, bool bf16, str isa) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)
_library.impl("packed_linear", packed_linear, "CPU")


@torch.library.register_fake("halfbyte::packed_linear", lib=_library)
def fake(x, data, smooth, bias, n, rank, bf16, isa):
    return x.new_empty(x.shape[0], n)
