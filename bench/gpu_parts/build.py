"""Install halfbyte for the GPU found here, and say what was built and what is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from typing import Any

from .commands import run as run_command
from .context import Context, OutOfTime, missing_packages
from .log import Log
from .record import ROOT

NEEDED = ("torch", "triton", "numpy", "rich", "typer", "safetensors", "pybind11", "ninja", "pytest")
ONLY_MODELS = ("diffusers", "transformers", "accelerate")
OPTIONS = ["--quiet", "--disable-pip-version-check", "--no-build-isolation", "--no-deps"]
INSTALL = [sys.executable, "-m", "pip", "install", *OPTIONS, "-e", str(ROOT)]
# A process of its own: this one must not hold a module that the build replaces.
LOOK = "import json, sys; sys.path.insert(0, sys.argv[1]); from gpu_parts.build import found; print(json.dumps(found()))"


LOOK_SECONDS = 120


def run(context: Context) -> None:
    if absent := missing_packages(NEEDED):
        context.absent(f"not installed here: {', '.join(absent)}")
    if absent := missing_packages(ONLY_MODELS):
        context.absent(f"not installed here: {', '.join(absent)}; the parts block and flux12b need them")
    context.case("install", lambda: dry_install() if context.dry else install(context.seconds_left, context.log), needs=60)
    facts = context.case("found", found if context.dry else lambda: found_by_another(context.log))
    if facts and not context.dry and not facts["cuda kernels"]:
        nvcc = "" if shutil.which("nvcc") else "nvcc is not on the path; "
        context.failures.append(f"found: no CUDA kernels were built; {nvcc}the log has the build's output")


def install(seconds: float, log: Log, simt: bool = False) -> dict[str, Any]:
    """Raises RuntimeError with the last lines of a build that failed, OutOfTime where it does not end.

    simt: the CPU shim too; kernels that were compiled before are kept.
    """
    environment = {name: value for name, value in os.environ.items() if name != "HALFBYTE_CUDA_ARCHS"} | {"HALFBYTE_SIMT": str(int(simt))}
    start = time.perf_counter()
    try:
        done = run_command(INSTALL, seconds, log, env=environment)
    except subprocess.TimeoutExpired:
        raise OutOfTime("the build did not end in time; the kernels that it compiled are kept") from None
    if done.returncode:
        raise RuntimeError("pip install failed: " + " | ".join((done.stdout + done.stderr).strip().splitlines()[-8:]))
    return {"command": " ".join(INSTALL[1:]), "build seconds": round(time.perf_counter() - start, 1)}


def dry_install() -> dict[str, Any]:
    return {"command": " ".join(INSTALL[1:]), "build seconds": None}


def found() -> dict[str, Any]:
    from halfbyte.env import machine
    from halfbyte.ops import backends

    here = machine()
    facts = {"cuda kernels": here.cuda_kernels, "cpu kernels": here.extension, "gpus": [gpu.name for gpu in here.gpus]}
    return facts | {"ops": backends()}


def found_by_another(log: Log) -> dict[str, Any]:
    """Raises RuntimeError with the last line of an import that failed."""
    done = run_command([sys.executable, "-P", "-c", LOOK, str(ROOT / "bench")], LOOK_SECONDS, log)
    if done.returncode:
        raise RuntimeError(f"halfbyte does not import: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(done.stdout)
