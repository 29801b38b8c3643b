"""Triton's interpreter held to what GPUs compute: floats round to nearest even, and bfloat16 is a number, not its bits."""

from __future__ import annotations

import torch
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import TensorHandle

# Those that numpy lacks, and the interpreter stores as their bits.
SMALL_FLOATS = {tl.bfloat16: torch.bfloat16, tl.float8e4nv: torch.float8_e4m3fn, tl.float8e5: torch.float8_e5m2}
LARGEST = {tl.float8e4nv: 448.0, tl.float8e5: 57344.0}


def to_float32(handle: TensorHandle):
    """The values as a numpy array."""
    dtype = handle.dtype.scalar
    if dtype not in SMALL_FLOATS:
        return handle.data.astype("float32")
    return torch.from_numpy(handle.data.copy()).view(SMALL_FLOATS[dtype]).float().numpy()


def from_float32(values, dtype: tl.dtype) -> TensorHandle:
    """A numpy array rounded to dtype. FP8 saturates, as Triton's conversion instructions do."""
    if dtype not in SMALL_FLOATS:
        return TensorHandle(values.astype(interpreter._get_np_dtype(dtype)), dtype)
    tensor = torch.from_numpy(values.astype("float32"))
    if dtype in LARGEST:
        tensor = tensor.clamp(-LARGEST[dtype], LARGEST[dtype])
    bits = tensor.to(SMALL_FLOATS[dtype]).view(torch.int16 if dtype == tl.bfloat16 else torch.uint8).numpy()
    return TensorHandle(bits.view(interpreter._get_np_dtype(dtype)), dtype)


def repair() -> None:
    """Replace what Triton 3.6 gets wrong: conversions that truncate or round ties up, arithmetic on bfloat16's bits, constants
    of that type, and sizes as bounds of loops, which numpy 2.4 refuses as arrays of one element."""
    builder = interpreter.InterpreterBuilder
    own_cast, own_binary_op, own_dot = builder.cast_impl, builder.binary_op, builder.create_dot
    own_lang_tensor = interpreter._patch_lang_tensor

    def cast_impl(self, src, dst_type):
        if SMALL_FLOATS.keys() & {src.dtype.scalar, dst_type.scalar}:
            return from_float32(to_float32(src), dst_type.scalar)
        return own_cast(self, src, dst_type)

    def create_fp_to_fp(self, src, dst_type, rounding_mode):
        return cast_impl(self, src, dst_type)

    def binary_op(self, lhs, rhs, op):
        if lhs.dtype.scalar != tl.bfloat16:
            return own_binary_op(self, lhs, rhs, op)
        values = op(to_float32(lhs), to_float32(rhs))
        return TensorHandle(values, tl.bfloat16) if values.dtype == bool else from_float32(values, tl.bfloat16)

    def create_dot(self, a, b, d, input_precision, max_num_imprecise_acc):
        a, b = (TensorHandle(to_float32(x), tl.float32) if x.dtype.scalar in SMALL_FLOATS else x for x in (a, b))
        return own_dot(self, a, b, d, input_precision, max_num_imprecise_acc)

    def patch_lang_tensor(tensor, scope) -> None:
        own_lang_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    builder.cast_impl, builder.create_fp_to_fp = cast_impl, create_fp_to_fp
    builder.binary_op, builder.create_dot = binary_op, create_dot
    builder.get_bf16 = lambda self, value: from_float32(torch.tensor([value]).numpy(), tl.bfloat16)
    interpreter._patch_lang_tensor = patch_lang_tensor
