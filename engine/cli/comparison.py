"""The demo's rows for one workload: float, float with fewer steps, 4-bit, cached, 4-bit and cached."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from ..env import machine
from ..measure import module_bytes
from ..models import find_denoisers
from ..pipeline import accelerate
from ..report import Contender, Judge, Row, Workload, judge_rows, run_interleaved, timed_call
from .options import open_pipeline

CALIBRATION_SEED = 100_000  # far from the seeds that are measured
CALIBRATION_IMAGES = 30
PROBE_STEPS = 6


@dataclass(frozen=True)
class Comparison:
    """rows and images by row name; baseline: the faster float row, which speed is relative to; low_bit: what 4-bit rows run."""

    rows: list[Row]
    images: Mapping[str, Tensor]
    baseline: str
    low_bit: str
    machine: str


def compare(workload: Workload, images: int, steps: int, repeats: int, fraction: float, recipe: str, progress: Progress) -> Comparison:
    """Measure every row of `workload`; fidelity is against the fp32, uncached run at the same seeds.

    The accelerated rows compute in the float type that is faster here, as the float row they are compared with does.
    """
    call = partial(workload.call_arguments, images)
    calibration = workload.call_arguments(CALIBRATION_IMAGES, CALIBRATION_SEED, steps)
    floats = {f"float {name}": load_quietly(workload, dtype) for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
    baseline = faster(floats, partial(call, steps=min(steps, PROBE_STEPS)))
    base = floats[baseline]
    dtype = find_denoisers(base).popitem()[1].dtype

    task = progress.add_task(f"{workload.name}: planning and quantizing", total=None)
    cached = accelerate(load_quietly(workload, dtype), recipe=None, cache=fraction, calibration=calibration, progress=False)
    quantized = load_quietly(workload, dtype)
    both = accelerate(quantized, recipe=recipe, cache=cached.plan.cache, calibration=calibration, progress=False)
    progress.update(task, description=f"{workload.name}: looking for equal time")
    fewer = steps_in_equal_time(base, cached, call, steps)
    progress.remove_task(task)

    kind = baseline.split()[1]
    stored = denoiser_bytes(quantized)
    low_bytes = (stored, stored - sum(both.plan.stored_bytes.values()) + both.prepared.prepared_bytes)
    rows = [Contender(name, pipe, partial(call, steps=steps), name.split()[1], *[denoiser_bytes(pipe)] * 2) for name, pipe in floats.items()]
    rows = [row for row in rows if row.name in ("float fp32", baseline)]
    rows += [
        Contender(f"float, {fewer} steps", base, partial(call, steps=fewer), kind, *[denoiser_bytes(base)] * 2),
        Contender("4-bit", quantized, partial(call, steps=steps), f"native {kind}", *low_bytes),
        Contender("cached", cached, partial(call, steps=steps), kind, *[denoiser_bytes(cached)] * 2),
        Contender("4-bit + cached", both, partial(call, steps=steps), f"native {kind}", *low_bytes),
    ]
    task = progress.add_task(f"{workload.name}: measuring", total=len(rows) * (repeats + 1))
    samples = run_interleaved(rows, repeats, tick=lambda row: progress.update(task, advance=1, description=f"{workload.name}: {row}"))
    judged = judge_rows(rows, samples, Judge(workload.classifier), workload.labels(images))
    return Comparison(
        rows=judged,
        images={name: sample.images for name, sample in samples.items()},
        baseline=baseline,
        low_bit=both.prepared.description,
        machine=f"{machine().cpu}, {torch.get_num_threads()} threads",
    )


def load_quietly(workload: Workload, dtype: torch.dtype = torch.float32) -> Any:
    pipe = open_pipeline(workload.pipeline, dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def faster(pipes: Mapping[str, Any], call: Callable[[], Mapping[str, Any]]) -> str:
    """The name of the pipeline that denoises fastest here: 4-bit is compared with the better of fp32 and bf16."""
    seconds: dict[str, list[float]] = {name: [] for name in pipes}
    for _ in range(4):
        for name, pipe in pipes.items():
            seconds[name].append(timed_call(pipe, call())[1].denoising)
    return min(seconds, key=lambda name: min(seconds[name][1:]))


def steps_in_equal_time(base: Any, cached: Any, call: Callable[..., Mapping[str, Any]], steps: int) -> int:
    """The fewest float steps that take at least the cached run's denoising time."""
    full, short = [], []
    for _ in range(3):
        full.append(timed_call(base, call(steps=steps))[1].denoising)
        short.append(timed_call(cached, call(steps=steps))[1].denoising)
    return min(steps, max(1, math.ceil(steps * min(short) / min(full))))


def denoiser_bytes(pipe: Any) -> int:
    return sum(module_bytes(model) for model in find_denoisers(pipe).values())
