"""The fused linear of real layers against bf16 and _scaled_mm, and the bandwidth of quantizing activations."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from halfbyte.ops import OPS

from .candidates import TUNING_SECONDS, Candidates
from .captured_ops import capture_every_op
from .context import Context
from .layer import Layer, backends_here, formats_here, on_backend, reason_against
from .rivals import ScaledMM, dense, feed_forward, modulated_layer_norm, rowwise_e4m3, scaled_mm_refusal
from .sizes import NAMED, WIDE
from .timing import copies_beyond_l2, microseconds, ratios, rotated

RANK = 32
AFTER_A_NORM = ("flux.qkv", "flux.ff_up", "pixart.ff_up")
LINEAR, TUNED, SCALED = "F.linear bf16", "max-autotune bf16", "_scaled_mm with quantization"
TUNING = "max-autotune-no-cudagraphs"


def run(context: Context) -> None:
    for shape in context.sizes.shapes():
        context.case(f"linear {shape.name}", lambda: linear(context, Layer(shape.m, shape.n, shape.k, context.device)), needs=75)
    for shape in context.sizes.shapes((*NAMED, *WIDE)):
        context.case(f"quantize {shape.name}", lambda: quantize(context, shape.m, shape.k), needs=15)
    for shape in context.sizes.shapes(AFTER_A_NORM):
        size = (shape.m, shape.n, shape.k)
        context.case(f"norm and linear {shape.name}", lambda: norm_and_linear(context, Layer(*size, context.device)), needs=30)
    shapes = [context.sizes.shapes((name,))[0] for name in ("flux.ff_up", "flux.ff_down")]
    layers = [Layer(shape.m, shape.n, shape.k, context.device) for shape in shapes]
    context.case("feed-forward flux", lambda: feed_forwards(context, *layers), needs=30)
    for backend in ("reference",) if context.dry else backends_here(context.device):
        context.case(f"every {backend} op in a CUDA graph", lambda backend=backend: capture_every_op(context, backend), needs=60)


def add_own(
    candidates: Candidates, name: str, layer: Layer, call: Callable[[str, int], Any], ranks: tuple[int, ...] = (0, RANK)
) -> None:
    """call(format, rank) on every backend that takes quantization and product of the format by itself."""
    device = candidates.context.device
    for backend in backends_here(device):
        for format in formats_here(device):
            for rank in ranks:
                full = f"{backend} {format}, {name}rank {rank}"
                quantized = OPS["quantize_act"].reference(layer.x, layer.smooth, layer.factors(rank)[0], format)
                product = {"int4": "gemm_w4a4", "nvfp4": "gemm_nvfp4"}.get(format, "gemm_w8a8")
                reason = reason_against(backend, "quantize_act", layer.x, layer.smooth, layer.factors(rank)[0], format)
                if reason := reason or reason_against(backend, product, *layer.operands(quantized, format, rank)):
                    candidates.refused[full] = reason
                else:
                    candidates.add(full, on_backend(backend, call, format, rank))


def linear(context: Context, layer: Layer) -> dict[str, Any]:
    """Activation quantization included in all but bf16; rank 32 beside rank 0."""
    candidates, x = Candidates(context), layer.x
    tuned = context.compile(dense, TUNING)
    candidates.add(LINEAR, lambda: F.linear(x, layer.weight, layer.bias))
    candidates.add(TUNED, lambda: tuned(x, layer.weight, layer.bias), TUNING_SECONDS)
    if reason := scaled_mm_refusal(context.device):
        candidates.refused[SCALED] = reason
    else:
        rival = ScaledMM(layer.weight, layer.bias, context.compile(rowwise_e4m3))
        candidates.add(SCALED, lambda: rival(x))
    add_own(candidates, "", layer, lambda format, rank: layer.product(layer.quantize(x, format, rank), format, rank))
    found = candidates.measure((LINEAR, TUNED), layer.flop)
    samples = {name: [value / 1e6 for value in taken] for name, taken in found["samples us"].items()}
    own = [name.removesuffix(f"rank {RANK}") for name in samples if name.endswith(f"rank {RANK}")]
    pairs = [name for name in own if f"{name}rank 0" in samples]
    costs = {name.rstrip(", "): ratios(samples, f"{name}rank {RANK}", [f"{name}rank 0"]) for name in pairs}
    found["time of rank 32 over rank 0"] = {name: next(iter(ratio.values())) for name, ratio in costs.items()}
    if SCALED in samples:
        found["speed-up over _scaled_mm"] = ratios(samples, SCALED, [name for name in samples if "rank" in name])
    return {"m, n, k": list(layer.size)} | found


def norm_and_linear(context: Context, layer: Layer) -> dict[str, Any]:
    """Norm, quantization and product; and what the product costs a layer whose norm quantizes: all of it, less the bf16 norm."""
    candidates, x, modulation = Candidates(context), layer.x, (layer.mod_scale, layer.mod_shift)
    norm = context.compile(modulated_layer_norm)
    candidates.add("bf16 norm", lambda: norm(x, *modulation))
    candidates.add("F.linear bf16 alone", lambda: F.linear(x, layer.weight, layer.bias))
    candidates.add("bf16", lambda: F.linear(norm(x, *modulation), layer.weight, layer.bias))

    def fused(format: str, rank: int) -> Any:
        return layer.product(layer.norm_quantize(x, format, rank), format, rank)

    add_own(candidates, "", layer, fused, (RANK,))
    found = candidates.measure(("bf16",), layer.flop)
    samples = found["samples us"]
    own = [name for name in samples if "rank" in name]
    costs = {name: [max(a - b, 1e-3) for a, b in zip(samples[name], samples["bf16 norm"], strict=True)] for name in own}
    costs["linear"] = samples["F.linear bf16 alone"]
    found["speed-up of the linear alone, bf16 norm taken off"] = ratios(costs, "linear", own)
    return {"m, n, k": list(layer.size)} | found


def feed_forwards(context: Context, up: Layer, down: Layer) -> dict[str, Any]:
    """Both linears of a feed-forward: the first quantizes for the second behind its GELU, in one kernel, or writes bf16."""
    candidates, x = Candidates(context), up.x
    weights = (up.weight, up.bias, down.weight, down.bias)
    compiled = context.compile(feed_forward)
    candidates.add("bf16", lambda: feed_forward(x, *weights))
    candidates.add("compiled bf16", lambda: compiled(x, *weights))

    def fused(format: str, rank: int) -> Any:
        following = ("gelu_tanh", "none", down.smooth, down.factors(rank)[0], format)
        quantized = up.product(up.quantize(x, format, rank), format, rank, "act_quantize", *following)
        return down.product(quantized, format, rank)

    def apart(format: str, rank: int) -> Any:
        hidden_states = up.product(up.quantize(x, format, rank), format, rank, "act", "gelu_tanh", "none")
        return down.product(down.quantize(hidden_states, format, rank), format, rank)

    add_own(candidates, "quantized in the product, ", up, fused, (RANK,))
    add_own(candidates, "quantized apart, ", up, apart, (RANK,))
    return {"m, n, k": [list(up.size), list(down.size)]} | candidates.measure(("bf16", "compiled bf16"), up.flop + down.flop)


def quantize(context: Context, m: int, k: int) -> dict[str, Any]:
    """Bytes counted as 2MK read and MK written; several inputs in turn, so that none is in the cache. The copy moves as many."""
    count = copies_beyond_l2(2 * m * k) if context.device == "cuda" else 1
    inputs = [torch.randn(m, k, device=context.device, dtype=torch.bfloat16) for _ in range(count)]
    layer_smooth = torch.rand(k, device=context.device, dtype=torch.bfloat16) + 0.5
    down = torch.randn(k, RANK, device=context.device, dtype=torch.bfloat16)
    candidates = Candidates(context)
    candidates.add("copy of as many bytes", rotated(torch.clone, [x[: 3 * m // 4 or 1] for x in inputs]))
    for backend in backends_here(context.device):
        for format in [name for name in formats_here(context.device) if name in ("int8", "fp8")]:
            for name, proj_down in (("", None), (", rank 32", down)):
                full, args = f"{backend} {format}{name}", (layer_smooth, proj_down, format)
                if reason := reason_against(backend, "quantize_act", inputs[0], *args):
                    candidates.refused[full] = reason
                else:
                    candidates.add(full, on_backend(backend, rotated(lambda x, args=args: OPS["quantize_act"](x, *args), inputs)))
    samples = {name: [value / count for value in taken] for name, taken in candidates.samples(flush=False).items()}
    rates = {name: 3 * m * k / statistics.median(taken) / 1e12 for name, taken in samples.items()}
    found = microseconds(samples) | {"TB/s": rates}
    ceiling = context.record.part("ceilings")["cases"].get("copy")
    if ceiling:
        best = ceiling["TB/s"]["copy"]
        found["share of the measured copy"] = {name: rate / best for name, rate in rates.items()}
    return {"m, k": [m, k], "inputs in turn": count, "refused": candidates.refused} | found
