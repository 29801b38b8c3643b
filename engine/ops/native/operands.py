"""Tensors as the compiled kernels take them: dense, aligned, as addresses, with enum values for dtypes and epilogues."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

# The order of the C++ enums (csrc/cuda/dtype.h, gemm_arguments.h).
DTYPE_CODE = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2}
ACTIVATION_CODE = {"none": 0, "gelu_erf": 1, "gelu_tanh": 2, "silu": 3}
GLU_CODE = {"none": 0, "value_first": 1, "gate_first": 2}
HALVES = (torch.float16, torch.bfloat16)
ALIGNMENT = 16


def dense(tensor: Tensor | None) -> Tensor | None:
    """The tensor itself where a kernel can read it in 16-byte vectors, else a copy."""
    if tensor is None or (tensor.is_contiguous() and tensor.data_ptr() % ALIGNMENT == 0):
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def addresses(kernels: ModuleType, **tensors: Tensor | None) -> list[int]:
    """The address of each tensor, 0 for None or an empty one. The host shim is told which memory the launch may touch."""
    if hasattr(kernels, "register_memory"):
        there = {name: tensor for name, tensor in tensors.items() if tensor is not None and tensor.numel()}
        kernels.register_memory([(name, tensor.data_ptr(), span(tensor)) for name, tensor in there.items()])
    return [0 if tensor is None or not tensor.numel() else tensor.data_ptr() for tensor in tensors.values()]


def span(tensor: Tensor) -> int:
    """Bytes from the first element to the end of the last."""
    return (1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))) * tensor.element_size()


def floats(kernels: ModuleType, tensor: Tensor | None, address: int) -> object:
    """The tensor as the kernels' Floats: its address and dtype."""
    return kernels.Floats(address, DTYPE_CODE[torch.float32 if tensor is None else tensor.dtype])


def stream_of(tensor: Tensor) -> int:
    return torch.cuda.current_stream(tensor.device).cuda_stream if tensor.is_cuda else 0


def one_half_dtype(**dtypes: torch.dtype | None) -> str | None:
    """A sentence unless all dtypes that are there are the same 16-bit one."""
    there = {name: dtype for name, dtype in dtypes.items() if dtype is not None}
    if len(set(there.values())) == 1 and next(iter(there.values())) in HALVES:
        return None
    listed = ", ".join(f"{name} {str(dtype).removeprefix('torch.')}" for name, dtype in there.items())
    return f"one 16-bit dtype needed, got {listed}"
