"""`accelerate`: a diffusers pipeline in, the same pipeline out, its layers low-bit and its steps planned."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoint import attach_quantizer, load_pipeline
from ..convert import convert
from ..layers import low_bit_layers, prepare, reason_against, reason_against_memory
from ..models import find_denoisers
from ..models.fused import fuse_blocks as put_fused_forwards
from ..plan import FILE_NAME, Plan, build_plan, planned_decisions, planned_recipe, require_fit, search_cache
from ..quantize import Decision, Recipe, decide
from ..steps import CacheConfig, StepEngine, compile_blocks
from .inputs import cache_config, calibration_calls, fresh_generators
from .progress import conversion_progress
from .session import Acceleration, AcceleratedPipeline, Prepared, as_accelerated

Calls = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None


def accelerate(
    pipe: Any,
    recipe: str | Recipe | None = "svdq_int4",
    *,
    cache: CacheConfig | str | float | None = None,
    calibration: Calls = None,
    plan: Plan | str | os.PathLike | None = None,
    numerics: str = "native",
    memory: str = "fast",
    keep_base: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    compile: bool | Mapping[str, Any] = False,
    fuse_blocks: bool = True,
    resume: str | os.PathLike | None = None,
    progress: bool = True,
) -> Any:
    """Return a new object of the pipeline's own class that runs low-bit layers and a planned cache.

    recipe: a name from `halfbyte.RECIPES`, a Recipe, or None to keep float layers.
    cache: None, a CacheConfig, "interval:2", "steps:0,3,7", "gate:0.1", or the fraction of steps to compute, whose steps are
        searched on the calibration calls.
    calibration: the arguments of one pipeline call, or a list of them; without it the recipe runs data-free.
    plan: a Plan or its file, in place of recipe, cache and numerics; ValueError when it was made for another model.
    numerics: "native" (fastest here), or "w4a4", "w4a8", "nvfp4": what a given GPU would compute.
    memory: "fast", or "4bit" to keep nothing larger than the stored weights, which are then unpacked at each call.
    keep_base: convert copies and keep the float models, so that `.disable()` is exact; otherwise weights are converted in place.
    include, exclude: names or patterns of layers to quantize or to keep float; an included one that does not fit is a ValueError.
    compile: compile each block's own forward, with options of torch.compile if a mapping; hooks stay outside.
    fuse_blocks: run FLUX's transformer blocks on fused ops wherever all their layers run low-bit GPU kernels.
    resume: a folder that keeps finished blocks, so that an interrupted conversion goes on from there.
    progress: show a bar while converting.
    """
    if isinstance(pipe, AcceleratedPipeline):
        raise ValueError("pipe: a pipeline that is not accelerated yet is needed; this one already is")
    calls = calibration_calls(calibration)
    plan = Plan.load(plan) if isinstance(plan, (str, os.PathLike)) else plan
    config = plan.cache if plan else cache_config(cache)
    denoisers = find_denoisers(pipe)
    if plan:
        require_fit(plan, denoisers)
        recipe, numerics = planned_recipe(plan), plan.numerics
    if reason := reason_against_memory(memory, numerics):
        raise ValueError(reason)
    base: dict[str, nn.Module] = {}
    source = copy.copy(pipe)
    if keep_base:
        base, denoisers = denoisers, {name: copy.deepcopy(model) for name, model in denoisers.items()}
        source.__dict__.update(denoisers)
    steps, figures = (plan.num_inference_steps, plan.figures) if plan else (None, {})
    if isinstance(config, float):
        config, steps, figures = search_cache(source, [fresh_generators(call) for call in calls], config)

    def calibrate() -> None:
        for call in calls:
            source(**fresh_generators(call))

    decisions = {name: _decisions(plan, name, model, recipe, include, exclude) for name, model in denoisers.items()}
    for name, found in decisions.items():  # before a weight is touched
        for decision in found:
            if decision.layer_format and (reason := reason_against(decision.layer_format, numerics)):
                raise ValueError(f"{name}.{decision.name}: {reason}")
    for name, model in denoisers.items():
        if any(decision.layer_format for decision in decisions[name]):
            with conversion_progress(name, progress) as report:
                folder = Path(resume) / name if resume else None
                decisions[name] = convert(model, recipe, calibrate if calls else None, decisions[name], progress=report, resume=folder)
            attach_quantizer(model)
    reports = {name: prepare(model, numerics, memory) for name, model in denoisers.items()}
    options = dict(compile) if isinstance(compile, Mapping) else {}
    fused = {name: put_fused_forwards(model) for name, model in denoisers.items() if fuse_blocks and low_bit_layers(model)}
    undo = [blocks.undo for blocks in fused.values()]
    if compile is not False:
        undo += [compile_blocks(model, **options) for model in denoisers.values()]
    plan = plan or build_plan(denoisers, recipe, config, steps, numerics, figures, calibrated=bool(calls))
    engines = {name: StepEngine(model, config) for name, model in denoisers.items()}
    for engine in engines.values():
        engine.attach()
    return as_accelerated(source, Acceleration(plan, engines, base, Prepared(reports, fused), decisions, undo))


def from_pretrained(folder: str | os.PathLike, dtype: torch.dtype | None = None, memory: str = "fast", **options: Any) -> Any:
    """Load a saved pipeline folder, its files checked first; with a plan beside it, accelerated as it was saved.

    dtype: to compute in, float32 when None. memory: as in `accelerate`, for a folder with a plan. options: for
    `DiffusionPipeline.from_pretrained`. Raises ValueError when the folder is no pipeline or one of its files is damaged.
    """
    pipe = load_pipeline(folder, dtype, **options)
    if not (Path(folder) / FILE_NAME).is_file():
        return pipe
    return accelerate(pipe, plan=Plan.load(folder), memory=memory, progress=False)


def _decisions(
    plan: Plan | None, name: str, model: nn.Module, recipe: str | Recipe | None, include: Sequence[str], exclude: Sequence[str]
) -> list[Decision]:
    """What to convert; nothing when the model was loaded in low bits or no recipe is wanted."""
    if low_bit_layers(model) or (recipe is None and plan is None):
        return []
    return planned_decisions(plan, name, model) if plan else decide(model, recipe, include, exclude)
