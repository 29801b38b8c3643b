"""`halfbyte tune` over the shared shapes, op by op; what it keeps for this machine is copied beside the record."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from .commands import run as run_command
from .context import Context, OutOfTime
from .log import Log

COMMAND = [sys.executable, "-P", "-c", "from halfbyte.cli import main; main()", "tune"]
RESULTS = "tuned"
# These carry nearly all the time of a step.
FIRST = ("gemm_w8a8", "quantize_act", "norm_quantize", "gemm_w8a8_act_quantize", "gemm_w8a8_gate_residual")


def run(context: Context) -> None:
    try:
        from halfbyte.testing.triton.tune import tunable_ops
    except ImportError as error:
        context.absent(f"this version of halfbyte has no command `halfbyte tune` ({error})")
        return
    ops = tunable_ops()
    shapes = [f"{shape.m},{shape.n},{shape.k}" for shape in context.sizes.shapes()]
    if context.dry:
        context.case("help", lambda: {"ops": ops, "shapes": shapes, "output": tuned(["--help"], 100, context.log, as_json=False)})
        return
    for op in sorted(ops, key=lambda op: FIRST.index(op) if op in FIRST else len(FIRST)):
        context.case(op, lambda: tune(context, op, shapes), needs=60)


def tune(context: Context, op: str, shapes: list[str]) -> dict[str, Any]:
    """Every configuration kept, with its time and the default's."""
    arguments = ["--op", op, "--json", *(part for shape in shapes for part in ("--shape", shape))]
    try:
        found = tuned(arguments, context.seconds_left, context.log)
    finally:
        keep(context.out / RESULTS)
    return {"configurations": found["configurations"]}


def keep(folder: Path) -> None:
    """Also what a search that was cut short had found."""
    from halfbyte.ops.triton.tuned import cache_folder

    folder.mkdir(parents=True, exist_ok=True)
    for path in cache_folder().glob("*.json"):
        shutil.copy(path, folder)


def tuned(arguments: list[str], seconds: float, log: Log, as_json: bool = True) -> Any:
    """Raises RuntimeError with the last line of a run that failed, OutOfTime when it does not end."""
    try:
        done = run_command([*COMMAND, *arguments], seconds, log)
    except subprocess.TimeoutExpired:
        raise OutOfTime(f"halfbyte tune {' '.join(arguments[:2])} did not end in time; what it found is kept") from None
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["halfbyte tune failed"])[-1])
    return json.loads(done.stdout) if as_json else done.stdout
