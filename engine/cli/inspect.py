"""`halfbyte inspect`: what a recipe would do to every layer of a pipeline, and why, before anything is touched."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from .options import AsJson, PipelineFolder, RecipeName, open_pipeline


def inspect(
    folder: PipelineFolder,
    recipe: RecipeName = "svdq_int4",
    include: Annotated[list[str] | None, typer.Option("--include", help="Layer name (pattern) that must be quantized.")] = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", help="Layer name (pattern) that stays float.")] = None,
    json_output: AsJson = False,
) -> None:
    """Print, per layer, its role, the bits it would be stored in, its bytes, and why.

    Examples:

      halfbyte inspect examples/digits/dit

      halfbyte inspect examples/digits/unet --recipe svdq_nvfp4 --json
    """
    from ..models import find_denoisers
    from ..plan.table import describe
    from ..quantize import decide
    from ..report.table import readable_bytes

    pipe = open_pipeline(folder)
    decisions = {
        name: decide(model, recipe, include=include or (), exclude=exclude or ()) for name, model in find_denoisers(pipe).items()
    }
    if json_output:
        print(json.dumps({name: [asdict(decision) for decision in found] for name, found in decisions.items()}, default=str))
        return
    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width to keep to
        console.width = 200
    for name, found in decisions.items():
        table = Table(title=f"{name}, recipe {recipe}", title_justify="left", box=box.SIMPLE, pad_edge=False)
        for heading in ("layer", "role", "shape", "stored as", "bytes", "float bytes", "why"):
            table.add_column(heading, overflow="fold")
        for decision in found:
            shape = " x ".join(map(str, decision.shape))
            table.add_row(
                decision.name, decision.role, shape, describe(decision.layer_format),
                f"{decision.stored_bytes:,}", f"{decision.float_bytes:,}", decision.reason,
            )  # fmt: skip
        console.print(table)
        stored, float_bytes = sum(d.stored_bytes for d in found), sum(d.float_bytes for d in found)
        quantized = sum(d.layer_format is not None for d in found)
        console.print(
            f"{name}: {quantized} of {len(found)} layers quantized; "
            f"{readable_bytes(float_bytes)} -> {readable_bytes(stored)} ({stored / float_bytes:.3f})"
        )
