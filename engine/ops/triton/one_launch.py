"""Whether a product quantizes its output for the next layer in its own launch, which segments and groups decide."""

from __future__ import annotations

import inspect

from ..registry import OPS


def one_launch(op: str, *args) -> bool:
    """Whether Triton's `<product>_act_quantize` needs no second launch to quantize with these arguments; cheap, and needs no GPU.

    A low-rank branch of the next layer adds a small launch that sums it. Shapes and dtypes alone count, so tensors may be fake.
    """
    from ...triton_kernels.one_launch import QuantizeArgs, quantizes_in_tile

    bound = inspect.signature(OPS[op].reference, eval_str=True).bind(*args).arguments
    names = list(bound)
    quantize_args = QuantizeArgs(*(bound[name] for name in names[names.index("glu") + 1 :]))
    return quantizes_in_tile(bound["qweight"].shape[0], bound["out_dtype"], bound["glu"], quantize_args)
