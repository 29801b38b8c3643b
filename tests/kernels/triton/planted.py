"""A kernel whose floats, 16384 in one warp, cannot stay in registers, held to the gates in a process that compiles."""

import sys

import torch
import triton
import triton.language as tl

from halfbyte.testing.triton import Compiled, compiling_for, failures


@triton.jit
def subtract_peak(x, y, N: tl.constexpr):
    rows = tl.load(x + tl.arange(0, N))
    tl.store(y + tl.arange(0, N), rows - tl.max(rows, 0))


def compiled(n: int, op: str = "planted", call: str = "call") -> Compiled:
    x, y = torch.empty(n), torch.empty(n)
    with compiling_for(90) as kernels:
        subtract_peak[(1,)](x, y, N=n, num_warps=1)
    kernel = kernels[0]
    return Compiled(op, call, kernel.name, 90, kernel.asm["cubin"], kernel.metadata.shared, 0.0)


if __name__ == "__main__":
    for what in sys.argv[1:]:
        planted = compiled(1024, "gemm_w8a8", "int8") if what == "opcode" else compiled(int(what))
        print(what, failures([planted]))
