"""`halfbyte tune`: measure the Triton kernels' launch configurations on this GPU, and keep the fastest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from .options import AsJson

if TYPE_CHECKING:
    from ..testing import Shape


def tune(
    op: Annotated[list[str] | None, typer.Option("--op", help="Op to tune; repeat for more, all otherwise.")] = None,
    shape: Annotated[list[str] | None, typer.Option("--shape", help="M,N,K of a layer; repeat for more, real layers otherwise.")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="bfloat16 or float16: what the layers compute in.")] = "bfloat16",
    json_output: AsJson = False,
) -> None:
    """Measure the Triton kernels on this GPU and keep the fastest configuration of each op and shape.

    A configuration is kept only when it gives the default's result. No call of an op ever searches; without this command each
    runs with the configuration shipped for its GPU.

    Examples:

      halfbyte tune --op gemm_w8a8 --shape 4096,3072,3072

      halfbyte tune
    """
    import torch

    from ..ops import NoBackendError
    from ..ops.triton.tuned import hand_in_cache_folder
    from ..testing import LAYER_SHAPES, calls_of
    from ..testing.triton.calls import one_of_each_kind
    from ..testing.triton.tune import tunable_ops, tune_call

    if dtype not in ("bfloat16", "float16"):
        raise ValueError(f"--dtype: bfloat16 or float16 needed, got {dtype!r}")
    shapes = [parse_shape(text) for text in shape] if shape else LAYER_SHAPES
    if not torch.cuda.is_available():
        raise RuntimeError("a GPU is needed to measure kernels on, and none was found")
    known_ops = tunable_ops()
    if unknown := sorted(set(op or ()) - set(known_ops)):
        raise ValueError(f"--op: one of {', '.join(known_ops)} needed, got {unknown[0]!r}")
    hand_in_cache_folder()

    from ..triton_kernels.tuning import remember

    keys: set[str] = set()
    rows, path = [], None
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=len(op or known_ops) * len(shapes))
        for name in op or known_ops:
            for layer in shapes:
                progress.update(bar, description=f"{name} {layer.name}")
                for args in one_of_each_kind(calls_of(name, layer, getattr(torch, dtype), "cuda")).values():
                    try:
                        for tuned in tune_call(name, args, keys):
                            path = remember({tuned.request: tuned.best.config})
                            rows.append(as_row(tuned))
                    except NoBackendError as error:
                        progress.console.print(f"{layer.name}: {error}")
                progress.advance(bar)
    if json_output:
        print(json.dumps({"file": str(path), "configurations": rows}))
        return
    table = Table("op, dtype and M N K", "default ms", "best ms", "configuration", title="halfbyte tune", title_justify="left")
    for row in rows:
        default = f"{row['default_ms']:.3f}" if row["default_ms"] else "does not run"
        table.add_row(row["key"], default, f"{row['best_ms']:.3f}", str(row["config"]))
    Console(highlight=False).print(table, f"kept in {path}" if path else "nothing to keep")


def parse_shape(text: str) -> Shape:
    """M,N,K; raises ValueError when that is not three positive integers."""
    from ..testing import Shape

    sizes = text.split(",")
    if len(sizes) != 3 or not all(size.strip().isdecimal() and int(size) for size in sizes):
        raise ValueError(f"--shape: three positive integers M,N,K needed, got {text!r}")
    return Shape(text, *map(int, sizes))


def as_row(tuned) -> dict:
    default, best = tuned.tried[0], tuned.best
    refused = {str(trial.config): trial.reason for trial in tuned.tried if trial.milliseconds is None}
    row = {"key": tuned.request.key, "default_ms": default.milliseconds, "best_ms": best.milliseconds}
    return row | {"config": vars(best.config), "tried": len(tuned.tried), "refused": refused}
