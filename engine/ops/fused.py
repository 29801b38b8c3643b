"""Matrix products with an epilogue: `<product>_<epilogue>`, its arguments those of the product and then those of the epilogue."""

from __future__ import annotations

import inspect

import torch

from .conv2d import conv2d
from .epilogues import ACT, ACT_QUANTIZE, GATE_RESIDUAL, Epilogue
from .gemm_nvfp4 import gemm_nvfp4
from .gemm_w4a4 import gemm_w4a4
from .gemm_w8a8 import gemm_w8a8
from .registry import Op


def fuse(product: Op, epilogue: Epilogue) -> Op:
    """The op whose reference is the composition: the product in float32, then the epilogue, which rounds to out_dtype."""
    own = inspect.signature(product.reference, eval_str=True)
    more = inspect.signature(epilogue.reference, eval_str=True)
    *operands, out_dtype = own.parameters.values()
    y, same_out_dtype, *extra = more.parameters.values()
    assert out_dtype.name == same_out_dtype.name == "out_dtype" and y.name == "y"
    count = len(operands)

    def composed(*args):
        product_of_floats = product.reference(*args[:count], torch.float32)
        return epilogue.reference(product_of_floats, *args[count:])

    def fake(*args):
        return epilogue.fake(product.fake(*args[:count], torch.float32), *args[count:])

    def check(*args):
        epilogue.check(product.check(*args[: count + 1]), *args[count + 1 :])

    composed.__name__ = f"{product.name}_{epilogue.name}"
    composed.__doc__ = f"`{product.name}` followed by `{epilogue.name}`: {epilogue.reference.__doc__}"
    composed.__signature__ = inspect.Signature([*operands, out_dtype, *extra], return_annotation=more.return_annotation)
    op = Op(composed)
    op.set_fake(fake)
    op.set_check(check)
    return op


gemm_w4a4_act = fuse(gemm_w4a4, ACT)
gemm_w4a4_act_quantize = fuse(gemm_w4a4, ACT_QUANTIZE)
gemm_w4a4_gate_residual = fuse(gemm_w4a4, GATE_RESIDUAL)
gemm_w8a8_act = fuse(gemm_w8a8, ACT)
gemm_w8a8_act_quantize = fuse(gemm_w8a8, ACT_QUANTIZE)
gemm_w8a8_gate_residual = fuse(gemm_w8a8, GATE_RESIDUAL)
gemm_nvfp4_act = fuse(gemm_nvfp4, ACT)
gemm_nvfp4_act_quantize = fuse(gemm_nvfp4, ACT_QUANTIZE)
gemm_nvfp4_gate_residual = fuse(gemm_nvfp4, GATE_RESIDUAL)
conv2d_gate_residual = fuse(conv2d, GATE_RESIDUAL)
