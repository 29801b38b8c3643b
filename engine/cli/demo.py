"""`halfbyte demo`: a trained pipeline, float beside 4-bit and cached: one table, one picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from .options import AsJson

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "digits"


def demo(
    model: Annotated[str, typer.Option("--model", "-m", help="Which shipped model: dit, unet or both.")] = "both",
    images: Annotated[int, typer.Option("--images", "-n", min=1, help="Images a row.")] = 50,
    steps: Annotated[int, typer.Option("--steps", "-s", min=2, help="Denoising steps of the float row.")] = 50,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Timed rounds; every round runs every row.")] = 3,
    cache: Annotated[float, typer.Option("--cache", "-c", help="Fraction of steps the cached rows compute.")] = 0.36,
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="Recipe of the 4-bit rows.")] = "svdq_int4",
    examples: Annotated[Path, typer.Option("--examples", help="Folder with workloads.json and the trained models.")] = EXAMPLES,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the picture and the JSON.")] = Path("out/demo"),
    json_output: AsJson = False,
) -> None:
    """Run the shipped, trained models float and accelerated, side by side, at the same seeds.

    Examples:

      halfbyte demo

      halfbyte demo --model dit --images 20 --repeats 1 --json
    """
    from ..measure import load_guard
    from ..report import Workload, draw_rows, rows_table
    from .comparison import compare

    workloads = Workload.load_all(examples)
    names = list(workloads) if model == "both" else [model]
    if unknown := [name for name in names if name not in workloads]:
        raise ValueError(f"--model needs one of {', '.join([*workloads, 'both'])}; {unknown[0]!r} came")
    console = Console(stderr=json_output, highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width to keep to
        console.width = 120
    if warning := load_guard():
        console.print(f"[yellow]{warning}[/yellow]")
    results = {}
    for name in names:
        with Progress(console=console, transient=True) as progress:
            comparison = compare(workloads[name], images, steps, repeats, cache, recipe, progress)
        picture = draw_rows(comparison.images, out / f"{name}.png")
        results[name] = {
            "rows": [row.to_dict() for row in comparison.rows],
            "baseline": comparison.baseline,
            "picture": str(picture),
            "low_bit": comparison.low_bit,
            "machine": comparison.machine,
        }
        if not json_output:
            console.print(rows_table(comparison.rows, comparison.baseline, f"{name}: {images} images, {steps} steps, {comparison.machine}"))
            console.print(f"s/image, speed-up: the denoising loop, medians of {repeats} interleaved rounds; PSNR, SSIM: against float fp32.")
            console.print(f"4-bit rows run {comparison.low_bit}.\npicture: {picture}\n")
    report = out / "demo.json"
    partial = report.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1))
    partial.replace(report)
    if json_output:
        print(json.dumps(results))
