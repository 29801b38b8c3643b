"""`halfbyte generate`: images from a pipeline folder, float or quantized, cached or not."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .options import AsJson, CacheOption, CallOption, PipelineFolder, call_arguments, open_pipeline, parse_cache


def generate(
    folder: PipelineFolder,
    prompt: Annotated[list[str] | None, typer.Option("--prompt", "-p", help="Prompt; repeat for several images.")] = None,
    class_label: Annotated[list[int] | None, typer.Option("--class-label", "-l", help="Class label; repeat for several images.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the PNG files.")] = Path("out"),
    steps: Annotated[int, typer.Option("--steps", "-s", min=1, help="Denoising steps.")] = 50,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the first image; image i uses seed + i.")] = 0,
    cache: CacheOption = None,
    numerics: Annotated[str | None, typer.Option("--numerics", help="native, w4a4, w4a8 or nvfp4; by default the plan's.")] = None,
    memory: Annotated[str, typer.Option("--memory", help="fast, or 4bit to unpack stored weights at each call.")] = "fast",
    call: CallOption = "",
    json_output: AsJson = False,
) -> None:
    """Make images.

    Examples:

      halfbyte generate examples/digits/dit --class-label 3 --class-label 7

      halfbyte generate examples/digits/unet --prompt "a handwritten three" --cache interval:2 --out pictures
    """
    import torch

    from ..pipeline import accelerate
    from ..plan import FILE_NAME, Plan

    pipe = open_pipeline(folder)
    planned = Plan.load(folder) if (folder / FILE_NAME).is_file() else None
    if planned and cache is None:
        pipe = accelerate(pipe, plan=replace(planned, numerics=numerics or planned.numerics), memory=memory)
    elif cache is not None or numerics or memory != "fast":
        pipe = accelerate(pipe, recipe=None, cache=parse_cache(cache), numerics=numerics or "native", memory=memory)
    arguments = call_arguments(call, prompt, class_label)
    count = len(prompt or class_label or [0])
    arguments["generator"] = [torch.Generator().manual_seed(seed + index) for index in range(count)]
    pipe.set_progress_bar_config(disable=json_output)
    begin = time.perf_counter()
    images = pipe(**arguments, num_inference_steps=steps).images
    seconds = time.perf_counter() - begin
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, image in enumerate(images):
        path = out / f"{folder.resolve().name}_{seed + index}.png"
        partial = path.with_suffix(".partial.png")
        image.save(partial)
        paths.append(str(partial.replace(path)))
    if json_output:
        print(json.dumps({"images": paths, "seconds": seconds}))
    else:
        Console(highlight=False).print(f"{len(paths)} image(s) in {seconds:.2f} s: {', '.join(paths)}")
