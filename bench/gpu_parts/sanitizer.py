"""compute-sanitizer over every op at small sizes: memcheck finds bad accesses, racecheck shared-memory races."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import Any

from . import small_calls
from .commands import run as run_command
from .context import Context, OutOfTime
from .log import Log
from .machine import TOOLKIT

BACKENDS = ("cuda", "triton")
SUMMARIES = {"memcheck": r"ERROR SUMMARY: (\d+) error", "racecheck": r"RACECHECK SUMMARY: (\d+) hazard"}
# PyTorch asks the driver for functions that may not be there; that is no error of a kernel.
OPTIONS = {"memcheck": ["--report-api-errors", "no"], "racecheck": []}
TELLING = ("Error", "hazard", " at ")
# Blocks of the caching allocator are too large for an access beyond a tensor's end to be one beyond a block's.
ENVIRONMENT = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


def run(context: Context) -> None:
    tool = None if context.dry else find_tool()
    if tool is None:
        context.absent("compute-sanitizer is not here: the calls run without it")
        shapes = (small_calls.ONE_ROW,) if context.dry else (small_calls.ONE_ROW, small_calls.RAGGED)
        for backend in ("reference",) if context.dry else BACKENDS:
            context.case(f"plain {backend}", lambda: {"calls": small_calls.main(backend, context.device, shapes)})
        return
    for check in SUMMARIES:
        for backend in BACKENDS:
            found = context.case(f"{check} {backend}", lambda: sanitized(tool, check, backend, context.seconds_left, context.log), needs=90)
            if found and not found["calls"]:
                context.absent(f"no op has a {backend} kernel here, so {check} saw none")


def find_tool() -> str | None:
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=TOOLKIT)


def sanitized(tool: str, check: str, backend: str, seconds: float, log: Log) -> dict[str, Any]:
    """Raises RuntimeError unless the tool's summary counts nothing."""
    command = [tool, "--tool", check, *OPTIONS[check], sys.executable, "-P", small_calls.__file__, backend, "cuda"]
    try:
        done = run_command(command, seconds, log, env=os.environ | ENVIRONMENT)
    except subprocess.TimeoutExpired:
        raise OutOfTime(f"{check} of the {backend} kernels did not end in time") from None
    output = done.stdout + done.stderr
    summary = re.search(SUMMARIES[check], output)
    if summary is None or int(summary[1]) or done.returncode:
        told = [line for line in output.splitlines() if "=========" in line and any(word in line for word in TELLING)]
        raise RuntimeError(" | ".join(told[:8] or output.strip().splitlines()[-3:]))
    return {"tool": check, "found": 0, "calls": int(re.search(r"^(\d+) calls$", done.stdout, re.MULTILINE)[1])}
