"""A FLUX.1-dev-shaped 12 B model with random weights: whole denoising runs, memory, time to quantize, time by class of op."""

from __future__ import annotations

import gc
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

from .context import Context, missing_packages
from .flux_model import RANDOM_WEIGHTS, Denoising, GraphedForward, build
from .low_bit import RECIPE, convert_data_free, fuse_blocks, prepare, reason_against_option
from .op_classes import split
from .timing import fastest, ratios

FITS_BESIDE_BF16 = 70 << 30
BF16, LOW_BIT = "bf16", "low-bit"
OTHER_RECIPE = "svdq_nvfp4"
ATTENTION = ("native", "_native_cudnn", "_native_flash", "_flash_3")


def run(context: Context) -> None:
    if absent := missing_packages(["diffusers", "transformers", "accelerate"]):
        context.absent(f"{', '.join(absent)}: not installed, and the 12 B model is diffusers' own")
        return
    context.entry["note"] = RANDOM_WEIGHTS
    with torch.no_grad():
        measure(context)


def measure(context: Context) -> None:
    together = context.dry or torch.cuda.get_device_properties(0).total_memory > FITS_BESIDE_BF16
    models = Models(context)
    models.build(LOW_BIT)
    models.quantize()
    if any(f"{steps} steps" not in context.entry["cases"] for steps in context.sizes.steps):
        ways = models.ways(LOW_BIT)
        if together:
            models.build(BF16)
            ways |= models.ways(BF16)
        else:
            context.absent("this GPU does not hold the bf16 model beside the low-bit one, so bf16 is not run here")
        most, *fewer = sorted(context.sizes.steps, reverse=True)
        context.case(f"{most} steps", lambda: runs(context, ways, most), needs=90)
        for name in models.of:
            context.case(f"time by class, {name}", lambda: split(lambda: ways[f"{name} compiled"](1), context.device))
        for steps in fewer:
            context.case(f"{steps} steps", lambda: runs(context, ways, steps), needs=60)
        ways.clear()
        models.drop(BF16)
    context.case("memory", lambda: models.memory(), needs=20)
    if reason := reason_against_option("memory"):
        context.absent(reason)
    else:
        context.case("memory, 4-bit", lambda: models.memory("4bit"), needs=30)
    models.drop(LOW_BIT)
    context.case(f"quantize {OTHER_RECIPE}", lambda: models.quantize_other(OTHER_RECIPE), needs=120)


class Models:
    """The two models, and the ways that each can run."""

    def __init__(self, context: Context) -> None:
        self.context, self.device = context, context.device
        self.of: dict[str, nn.Module] = {}

    def build(self, name: str) -> None:
        from halfbyte.measure import PeakMemory, module_bytes

        start = time.perf_counter()
        with PeakMemory(self.device) as peak:
            self.of[name] = build(self.context.sizes, self.device)
        facts = {"parameters": sum(p.numel() for p in self.of[name].parameters()), "bytes": module_bytes(self.of[name])}
        facts |= {"build seconds": round(time.perf_counter() - start, 2), "peak bytes": peak.bytes}
        self.context.case(f"build {name}", lambda: facts, needs=0)

    def quantize(self) -> None:
        """Every run needs the model quantized; the record keeps the first time."""
        facts = self.timed_conversion(LOW_BIT, RECIPE)
        start = time.perf_counter()
        prepared = prepare(self.of[LOW_BIT])
        self.synchronize()
        facts["prepare seconds"] = round(time.perf_counter() - start, 2)
        self.context.case("quantize", lambda: facts | prepared, needs=0)
        reasons = fuse_blocks(self.context, self.of[LOW_BIT]) or {}
        self.context.entry["blocks that run unfused"] = {name: reason for name, reason in reasons.items() if reason}

    def quantize_other(self, recipe: str) -> dict[str, Any]:
        """Of a model of its own, which is gone afterwards."""
        self.of[recipe] = build(self.context.sizes, self.device)
        try:
            return self.timed_conversion(recipe, recipe)
        finally:
            self.drop(recipe)

    def timed_conversion(self, name: str, recipe: str) -> dict[str, Any]:
        """Quantizes the model in place, from its float weights on the device to stored ones there, first use of the device's
        libraries included."""
        from halfbyte.measure import PeakMemory, module_bytes

        start = time.perf_counter()
        with PeakMemory(self.device) as peak:
            found = convert_data_free(self.of[name], recipe)
            self.synchronize()
            taken = time.perf_counter() - start
        facts = {"recipe": f"{recipe}, data-free", "quantize seconds": round(taken, 2), "peak bytes": peak.bytes}
        return facts | {"stored bytes": module_bytes(self.of[name])} | found

    def synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def denoising(self, name: str, **options: Any) -> Denoising:
        return Denoising(self.of[name], self.context.sizes, self.device, **options)

    def ways(self, name: str) -> dict[str, Denoising]:
        """Way -> denoising. Blocks are compiled one by one, as pipelines do; a captured step is a compiled one."""
        model, sizes = self.of[name], self.context.sizes
        if name == BF16:
            self.best_attention(model)
        self.context.compile_blocks(model)
        found = {f"{name} eager": self.denoising(name, eager=True), f"{name} compiled": self.denoising(name)}
        if name == LOW_BIT:
            found[f"{name} eager, cached"] = self.denoising(name, engine=self.engine(model), eager=True)
        if self.device != "cuda":
            return found
        first = found[f"{name} compiled"]
        try:
            graphed = GraphedModel(GraphedForward(model, first.latents, first.arguments))
        except RuntimeError as error:
            self.context.failures.append(f"{name}: a step is not captured in a CUDA graph ({str(error).splitlines()[0][:200]})")
            return found
        found[f"{name} CUDA graph"] = Denoising(graphed, sizes, self.device)
        if name == LOW_BIT:
            found[f"{name} CUDA graph, cached"] = Denoising(graphed, sizes, self.device, self.engine(graphed))
        return found

    def best_attention(self, model: nn.Module) -> None:
        """Of diffusers' attention backends that run here, the one whose step is fastest."""
        calls = {}
        for backend in ATTENTION:
            try:
                model.set_attention_backend(backend)
                self.denoising(BF16)(1)
                calls[backend] = lambda backend=backend: (model.set_attention_backend(backend), self.denoising(BF16)(1))
            except (ValueError, RuntimeError, ImportError) as error:
                self.context.absent(f"diffusers' attention {backend} does not run here: {str(error).splitlines()[0][:200]}")
        from halfbyte.measure import interleave

        samples = interleave(calls, 2 if self.context.dry else 5, 1, self.device)
        best = fastest(samples, list(samples))
        model.set_attention_backend(best)
        self.context.case("attention of bf16", lambda: {"chosen": best, "samples s": samples}, needs=0)

    def engine(self, model: nn.Module) -> Any:
        """Computes at most `sizes.computed` steps of the longest run, and forecasts what the model returns on the others."""
        from halfbyte.steps import CacheConfig, DampedLinear, StaticSchedule, StepEngine

        most, computed = max(self.context.sizes.steps), self.context.sizes.computed
        chosen = sorted({round(index * (most - 1) / (computed - 1)) for index in range(computed)})
        schedule = StaticSchedule(compute_steps=tuple(chosen), n_steps=most)
        return StepEngine(model, CacheConfig(schedule, DampedLinear(), site="output", tabulate=False))

    def drop(self, name: str) -> None:
        self.of.pop(name, None)
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def memory(self, kind: str | None = None) -> dict[str, Any]:
        """Peak of a run of two steps with nothing else resident, and its seconds per step."""
        from halfbyte.measure import PeakMemory

        prepared = prepare(self.of[LOW_BIT], **({"memory": kind} if kind else {}))
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
        denoising = self.denoising(LOW_BIT, eager=True)
        denoising(1)
        with PeakMemory(self.device) as peak:
            start = time.perf_counter()
            finite = bool(denoising(2).isfinite().all())
        return prepared | {"peak bytes": peak.bytes, "seconds per step": (time.perf_counter() - start) / 2, "finite": finite}


class GraphedModel(nn.Module):
    """A captured forward as a module, for the step engine to hook."""

    def __init__(self, graphed: GraphedForward) -> None:
        super().__init__()
        self.graphed = graphed

    def forward(self, hidden_states: Tensor, timestep: Tensor, **arguments: Any) -> tuple[Tensor]:
        return self.graphed(hidden_states, timestep, **arguments)


def runs(context: Context, ways: dict[str, Denoising], steps: int) -> dict[str, Any]:
    """Wall seconds of whole runs, interleaved; rounds end early when time does, two at least."""
    from halfbyte.measure import interleave

    last: dict[str, Tensor] = {}
    calls = {way: (lambda way=way, run=run: last.update({way: run(steps)})) for way, run in ways.items()}
    for run in ways.values():
        run(2)
    samples: dict[str, list[float]] = {way: [] for way in calls}
    for index in range(context.sizes.run_rounds):
        start = time.perf_counter()
        for way, taken in interleave(dict(reversed(calls.items())) if index % 2 else calls, 1, 0, context.device).items():
            samples[way] += taken
        if index > 0 and context.seconds_left < 1.5 * (time.perf_counter() - start):
            break
    finite = {way: bool(latents.isfinite().all()) for way, latents in last.items()}
    baselines = [way for way in samples if way.startswith(BF16)]
    medians = {way: statistics.median(taken) for way, taken in samples.items()}
    found = {"samples s": samples, "median s": medians, "finite": finite}
    counts = {way: run.counts for way, run in ways.items() if run.counts}
    if baselines:
        best = fastest(samples, baselines)
        found |= {"baseline": best, "speed-up": ratios(samples, best, [way for way in samples if way not in baselines])}
    return found | {"steps of cached runs": counts}
