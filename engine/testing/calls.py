"""Example calls of every op at a given layer shape, and its outputs as floats with the format whose limit applies."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..ops import OPS, padded_rows
from ..ops.operands import dequantize_act
from .inputs import Inputs
from .limits import format_name
from .shapes import Shape

RANK = 32
K_MULTIPLE = {"int4": 64, "nvfp4": 16, "int8": 4, "fp8": 1}
Calls = dict[str, tuple]


def quantize_options(inputs: Inputs, k: int) -> Calls:
    """smooth, proj_down, format, shift, unsigned, segments, four_over_six; those that K = k suits."""
    smooth, proj_down = inputs.positive(k), inputs.normal(k, RANK, scale=k**-0.5)
    options = {
        "int4": (None, None, "int4"),
        "int4-svdq": (smooth, proj_down, "int4"),
        "int4-after-gelu": (smooth, proj_down, "int4", 0.171875, True),
        "nvfp4-four-over-six": (smooth, proj_down, "nvfp4", 0.0, False, 1, True),
        "int8-segments": (smooth, None, "int8", 0.0, False, 4),
        "fp8": (None, proj_down, "fp8"),
    }
    return {name: option for name, option in options.items() if k % K_MULTIPLE[option[2]] == 0}


def product_calls(name: str, inputs: Inputs, m: int, n: int, k: int) -> Calls:
    """Calls of gemm_w4a4, gemm_w8a8 or gemm_nvfp4."""
    low_rank, plain = inputs.companions(m, n, RANK, True), inputs.companions(m, n, 0, False)
    if name == "gemm_w4a4":
        weight = inputs.weight(n, k, "int4")
        signed, unsigned = inputs.act(m, k, "int4"), inputs.act(m, k, "int4", unsigned=True)
        return {
            "plain": (*signed, *weight, *plain, False, inputs.dtype),
            "low-rank": (*signed, *weight, *low_rank, False, inputs.dtype),
            "unsigned": (*unsigned, *weight, *low_rank, True, inputs.dtype),
        }
    formats = ("nvfp4",) if name == "gemm_nvfp4" else ("int8", "fp8")
    return {
        f"{format}-{kind}": (*inputs.act(m, k, format), *inputs.weight(n, k, format), *companions, inputs.dtype)
        for format in formats
        for kind, companions in (("plain", plain), ("low-rank", low_rank))
    }


def conv2d_calls(inputs: Inputs, n: int, channels: int) -> Calls:
    calls = {}
    for format, kernel, stride in (("int4", 3, 1), ("int8", 3, 2), ("nvfp4", 3, 1), ("fp8", 1, 1)):
        out_pixels = 2 * (-(-5 // stride)) * (-(-7 // stride))
        weight = (*inputs.weight(n, kernel * kernel * channels, format), None)[:3]
        companions = inputs.companions(out_pixels, n, RANK, True)
        geometry = (format, [2, 5, 7], [kernel] * 2, [stride] * 2, [kernel // 2] * 2, [1, 1])
        calls[f"{format}-{kernel}x{kernel}"] = (*inputs.act(70, channels, format), *weight, *companions, *geometry, inputs.dtype)
    return calls


def fused_calls(product: str, epilogue: str, inputs: Inputs, m: int, n: int, k: int) -> Calls:
    """Calls of `<product>_<epilogue>`: the product's arguments and then those of the epilogue."""
    if product == "conv2d":
        each, shape = [conv2d_calls(inputs, n, 64)["int4-3x3"]], (2, 5, 7, n)
    else:
        # Epilogues take turns with the formats that the product multiplies.
        calls = product_calls(product, inputs, m, n, k)
        each, shape = [call for name, call in calls.items() if name.endswith("low-rank")], (m, n)
    if epilogue == "gate_residual":
        residual, gate = inputs.normal(*shape), inputs.normal(1, n)
        return {"gate": (*each[0], gate, residual), "residual": (*each[-1], None, residual)}
    activations = (("gelu_erf", "none"), ("gelu_tanh", "value_first"), ("silu", "gate_first"))
    kinds = [(each[i % len(each)], *kind) for i, kind in enumerate(activations)]
    if epilogue == "act":
        return {f"{activation}-{glu}": (*operands, activation, glu) for operands, activation, glu in kinds}
    return {
        f"{activation}-{glu}-{name}": (*operands, activation, glu, *options)
        for operands, activation, glu in kinds
        for name, options in quantize_options(inputs, n if glu == "none" else n // 2).items()
    }


def quantize_act_calls(inputs: Inputs, m: int, n: int, k: int) -> Calls:
    return {name: (inputs.normal(m, k), *options) for name, options in quantize_options(inputs, k).items()}


def norm_quantize_calls(inputs: Inputs, m: int, n: int, k: int) -> Calls:
    modulation = inputs.normal(1, k), inputs.normal(1, k)
    kinds = {
        "layer-modulated": ("layer", 1e-6, None, None, *modulation),
        "rms": ("rms", 1e-6, inputs.positive(k), None, None, None),
    }
    options = quantize_options(inputs, k)
    return {f"{kind}-{name}": (inputs.normal(m, k), *kinds[kind], *options[name]) for kind in kinds for name in options}


def group_norm_silu_quantize_calls(inputs: Inputs, m: int, n: int, k: int) -> Calls:
    norm = (32, 1e-5, inputs.positive(k), inputs.normal(k), True)
    return {name: (inputs.normal(2, m, k), *norm, *options) for name, options in quantize_options(inputs, k).items()}


def gemm_w4a16_calls(inputs: Inputs, m: int, n: int, k: int) -> Calls:
    low_rank, plain = inputs.companions(m, n, RANK, True), inputs.companions(m, n, 0, False)
    x, smooth = inputs.normal(m, k), inputs.positive(k)
    return {
        "int4": (x, None, *inputs.weight(n, k, "int4"), None, *plain, inputs.dtype),
        "int4-svdq": (x, smooth, *inputs.weight(n, k, "int4"), None, *low_rank, inputs.dtype),
        "nvfp4": (x, None, *inputs.weight(n, k, "nvfp4"), *low_rank, inputs.dtype),
    }


def fold_weight_calls(inputs: Inputs, m: int, n: int, k: int) -> Calls:
    calls = {}
    for source, format, largest in (("int4", "int8", 127), ("nvfp4", "int8", 127), ("nvfp4", "fp8", 448)):
        qweight, wscales, *_ = inputs.weight(n, k, source)
        peak = {"int4": 7, "nvfp4": 6}[source] * wscales.float().amax(0)
        calls[f"{source}-{format}"] = (qweight, wscales, peak / largest, format)
    return calls


def gemm_w4a8_calls(inputs: Inputs, m: int, n: int, k: int) -> Calls:
    """In three parts, the last of which is smaller where 8 does not divide them."""
    fold_channels, calls = max(n // 3 // 8 * 8, 8), {}
    for name, (qweight, wscales, channel_scales, format) in fold_weight_calls(inputs, m, n, k).items():
        companions = inputs.companions(m, n, RANK, name != "nvfp4-int8")
        stored = qweight, wscales, channel_scales, channel_scales.clone()
        calls[name] = (*inputs.act(m, k, format), *stored, *companions, fold_channels, inputs.dtype)
    return calls


def qk_norm_rope_calls(inputs: Inputs, m: int, n: int, k: int) -> Calls:
    heads, width = k // 32, 32
    q, key, angle = inputs.normal(2, m, heads, width), inputs.normal(2, m, heads, width), inputs.normal(m, width // 2).float()
    rotation = angle.cos(), angle.sin(), 1e-6
    per_head, all_heads = inputs.positive(width), inputs.positive(heads * width)
    return {
        "per-head-interleaved": (q, key, per_head, per_head, *rotation, "interleaved"),
        "all-heads-half": (q, key, all_heads, all_heads, *rotation, "half"),
        "no-norm": (q, key, None, None, *rotation, "interleaved"),
    }


def joint_qkv_norm_rope_calls(inputs: Inputs, m: int, n: int, k: int) -> Calls:
    """The second stream's are views of one product's output."""
    heads, width, texts = k // 32, 32, 3
    first = [inputs.normal(2, texts, heads, width) for _ in "qkv"]
    second = inputs.normal(2, m, 3 * heads, width).split(heads, 2)
    angle = inputs.normal(texts + m, width // 2).float()
    operands = *first, *second, *(inputs.positive(width) for _ in range(4)), angle.cos(), angle.sin(), 1e-6
    return {f"{rope}-pairs": (*operands, rope) for rope in ("interleaved", "half")}


def attention_calls(inputs: Inputs, m: int, n: int, k: int) -> Calls:
    heads = min(k // 32, 4)
    q, key, value = (inputs.normal(2, tokens, heads, 32) for tokens in (m, n, n))
    return {"plain": (q, key, value, None), "masked": (q, key, value, inputs.normal(2, 1, m, n), 0.25)}


def cache_calls(inputs: Inputs, m: int, n: int, k: int) -> dict[str, Calls]:
    x, y, z = (inputs.normal(2, m, k) for _ in range(3))
    coefficients = torch.tensor([2.5, -2.0, 0.5], device=inputs.device)
    return {
        "rel_l1": {"plain": (x, y)},
        "delta_apply": {"plain": (x, y)},
        "affine_correct": {"plain": (x, inputs.positive(k), inputs.normal(k))},
        "forecast": {"quadratic": ([x, y, z], coefficients), "hold": ([x], coefficients[:1])},
    }


BUILDERS: dict[str, Callable[[Inputs, int, int, int], Calls]] = {
    "attention": attention_calls,
    "conv2d": lambda inputs, m, n, k: conv2d_calls(inputs, n, min(k, 128)),
    "fold_weight": fold_weight_calls,
    "gemm_w4a8": gemm_w4a8_calls,
    "gemm_w4a16": gemm_w4a16_calls,
    "group_norm_silu_quantize": group_norm_silu_quantize_calls,
    "joint_qkv_norm_rope": joint_qkv_norm_rope_calls,
    "norm_quantize": norm_quantize_calls,
    "qk_norm_rope": qk_norm_rope_calls,
    "quantize_act": quantize_act_calls,
}
for _product in ("gemm_w4a4", "gemm_w8a8", "gemm_nvfp4"):
    BUILDERS[_product] = partial(product_calls, _product)
    for _epilogue in ("act", "act_quantize", "gate_residual"):
        BUILDERS[f"{_product}_{_epilogue}"] = partial(fused_calls, _product, _epilogue)
BUILDERS["conv2d_gate_residual"] = partial(fused_calls, "conv2d", "gate_residual")
for _name in ("rel_l1", "delta_apply", "affine_correct", "forecast"):
    BUILDERS[_name] = lambda inputs, m, n, k, name=_name: cache_calls(inputs, m, n, k)[name]


def calls_of(name: str, shape: Shape, dtype: torch.dtype = torch.bfloat16, device: str = "cpu") -> Calls:
    """Readable id -> arguments of the op at this layer shape."""
    return BUILDERS[name](Inputs(dtype, device), shape.m, shape.n, shape.k)


def outputs_as_floats(name: str, args: tuple, outputs: Any) -> dict[str, tuple[Tensor, str]]:
    """Output name -> (float tensor, format whose limit applies); quantized outputs are dequantized."""
    if name == "fold_weight":
        return {"codes": (outputs.float(), args[3])}
    if not name.endswith(("quantize", "quantize_act")):
        tensors = outputs if isinstance(outputs, tuple) else (outputs,)
        return {f"output {i}": (tensor, format_name(tensor.dtype)) for i, tensor in enumerate(tensors)}
    qx, ascales, low_rank_act = outputs
    bound = inspect.signature(OPS[name].reference, eval_str=True).bind(*args)
    bound.apply_defaults()
    format, unsigned = bound.arguments["format"], bound.arguments["unsigned"]
    padding = ascales[:, qx.shape[0] : padded_rows(qx.shape[0])].float()
    return {
        "qx * ascales": (dequantize_act(qx, ascales, format, unsigned), format),
        "padding of ascales": (padding, "float32"),
        "low_rank_act": (low_rank_act, format_name(low_rank_act.dtype)),
    }
