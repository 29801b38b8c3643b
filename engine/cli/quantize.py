"""`halfbyte quantize`: a pipeline folder in, the same pipeline out in low bits, with its plan."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .options import AsJson, CacheOption, CallOption, PipelineFolder, RecipeName, call_arguments, open_pipeline, parse_cache


def quantize(
    folder: PipelineFolder,
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist.")],
    recipe: RecipeName = "svdq_int4",
    prompt: Annotated[list[str] | None, typer.Option("--prompt", "-p", help="Calibration prompt; repeat for more.")] = None,
    class_label: Annotated[list[int] | None, typer.Option("--class-label", "-l", help="Calibration class label; repeat for more.")] = None,
    steps: Annotated[int, typer.Option("--steps", "-s", min=1, help="Denoising steps of the calibration run.")] = 50,
    cache: CacheOption = None,
    include: Annotated[list[str] | None, typer.Option("--include", help="Layer name (pattern) that must be quantized.")] = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", help="Layer name (pattern) that stays float.")] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Folder that keeps finished blocks; run again to go on.")] = None,
    call: CallOption = "",
    json_output: AsJson = False,
) -> None:
    """Quantize a pipeline; calibrated when prompts, labels or --call are given, data-free otherwise.

    Examples:

      halfbyte quantize examples/digits/dit digits-4bit --class-label 0 --class-label 1 --cache 0.4

      halfbyte quantize my-flux my-flux-nvfp4 --recipe svdq_nvfp4
    """
    import torch

    from ..pipeline import accelerate

    if out.exists():
        raise ValueError(f"{out} needs to be a folder that does not exist yet; it does")
    pipe = open_pipeline(folder)
    calibration = call_arguments(call, prompt, class_label)
    if calibration:
        calibration |= {"num_inference_steps": steps, "generator": torch.Generator().manual_seed(0)}
    pipe.set_progress_bar_config(disable=True)
    fast = accelerate(
        pipe,
        recipe,
        cache=parse_cache(cache),
        calibration=calibration or None,
        include=include or (),
        exclude=exclude or (),
        resume=resume,
        progress=not json_output,
    )
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    fast.save_pretrained(partial, safe_serialization=True)
    partial.replace(out)
    if json_output:
        print(json.dumps({"folder": str(out), "plan": fast.plan.to_dict()}))
    else:
        Console(highlight=False).print(f"{fast.plan}\nwritten to {out}; load it with halfbyte.from_pretrained({str(out)!r})")
