"""What this GPU can do at most: copying, products in bf16 and 8 bits, attention, and our own product without quantization."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from halfbyte.ops import OPS

from .candidates import Candidates
from .context import Context
from .layer import Layer, backends_here, formats_here, on_backend, reason_against
from .rivals import ScaledMM, rowwise_e4m3, scaled_mm_refusal
from .timing import Call, microseconds

ATTENTION = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


def run(context: Context) -> None:
    context.case("copy", lambda: copy(context))
    context.case("square product", lambda: products(context, *(context.sizes.square,) * 3))
    for shape in context.sizes.shapes():
        context.case(f"product {shape.name}", lambda: products(context, shape.m, shape.n, shape.k), needs=30)
    context.case("attention", lambda: attention(context), needs=30)


def measured(context: Context, calls: dict[str, Call], work: dict[str, float], flush: bool = True) -> dict[str, Any]:
    """work: unit -> amount one call does; the rates are those of the medians."""
    candidates = Candidates(context)
    for name, call in calls.items():
        candidates.add(name, call)
    samples = candidates.samples(flush)
    medians = {name: statistics.median(taken) for name, taken in samples.items()}
    rates = {unit: {name: amount / seconds / 1e12 for name, seconds in medians.items()} for unit, amount in work.items()}
    return microseconds(samples) | rates | {"refused": candidates.refused}


def copy(context: Context) -> dict[str, Any]:
    """Bytes read and bytes written, both counted."""
    source = torch.empty(context.sizes.copy_bytes // 4, dtype=torch.float32, device=context.device).uniform_()
    target = torch.empty_like(source)
    calls: dict[str, Call] = {"copy": lambda: target.copy_(source)}
    return {"bytes": source.nbytes} | measured(context, calls, {"TB/s": 2 * source.nbytes}, flush=False)


def products(context: Context, m: int, n: int, k: int) -> dict[str, Any]:
    layer = Layer(m, n, k, context.device)
    codes, weight = (torch.randint(-127, 128, size, device=context.device, dtype=torch.int8) for size in ((m, k), (n, k)))
    row_major = weight.t().contiguous()
    calls: dict[str, Call] = {
        "bf16": lambda: F.linear(layer.x, layer.weight),
        "_int_mm, weight row-major": lambda: torch._int_mm(codes, row_major),
        "_int_mm, weight column-major": lambda: torch._int_mm(codes, weight.t()),
    }
    if reason := scaled_mm_refusal(context.device):
        context.absent(reason)
    else:
        rival = ScaledMM(layer.weight, None, context.compile(rowwise_e4m3))
        quantized = rowwise_e4m3(layer.x)
        calls |= {"_scaled_mm row-wise, quantized before": lambda: rival.product(*quantized)}
        calls |= {"_scaled_mm row-wise with quantization": lambda: rival(layer.x)}
    calls |= own_products(context, layer)
    return {"m, n, k": [m, n, k]} | measured(context, calls, {"TFLOP/s": layer.flop})


def own_products(context: Context, layer: Layer) -> dict[str, Call]:
    """Our kernels on activations quantized before, rank 0, no bias: the loop alone."""
    calls = {}
    for backend in backends_here(context.device):
        for format in formats_here(context.device):
            quantized = OPS["quantize_act"].reference(layer.x, layer.smooth, None, format)
            args = layer.operands(quantized, format, 0, bias=False)
            name = {"int4": "gemm_w4a4", "nvfp4": "gemm_nvfp4"}.get(format, "gemm_w8a8")
            if reason := reason_against(backend, name, *args):
                context.absent(f"{backend} {format}: {reason}")
            else:
                calls[f"{backend} {format}, no quantization"] = on_backend(backend, OPS[name], *args)
    return calls


def attention(context: Context) -> dict[str, Any]:
    """Of one FLUX block: heads x tokens^2 x width, twice; each backend of PyTorch, and the op as it dispatches by itself."""
    flux, tokens = context.sizes.flux, context.sizes.image_side**2 + context.sizes.text_tokens
    heads, width = flux["num_attention_heads"], flux["attention_head_dim"]
    q, k, v = (torch.randn(1, tokens, heads, width, device=context.device, dtype=torch.bfloat16) for _ in range(3))

    def through(backend: SDPBackend) -> Callable[[], Any]:
        def call() -> Any:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)))

        return call

    calls: dict[str, Call] = {name: through(backend) for name, backend in ATTENTION.items()}
    calls["halfbyte.ops.attention"] = lambda: OPS["attention"](q, k, v, None)
    try:
        from flash_attn_interface import flash_attn_func
    except ImportError:
        context.absent("FlashAttention 3 is not installed")
    else:
        calls["FlashAttention 3"] = lambda: flash_attn_func(q, k, v)
    flop = 4 * heads * tokens * tokens * width
    return {"tokens, heads, width": [tokens, heads, width]} | measured(context, calls, {"TFLOP/s": flop})
