"""Install halfbyte for the GPU found here, and say what was built and what is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

from .context import Context, missing_packages
from .record import ROOT

NEEDED = ("torch", "triton", "numpy", "rich", "typer", "safetensors", "pybind11", "ninja", "pytest")
ONLY_MODELS = ("diffusers", "transformers", "accelerate")
OPTIONS = ["--quiet", "--disable-pip-version-check", "--no-build-isolation", "--no-deps"]
INSTALL = [sys.executable, "-m", "pip", "install", *OPTIONS, "-e", str(ROOT)]
# A process of its own: this one must not hold a module that the build replaces.
LOOK = "import json, sys; sys.path.insert(0, sys.argv[1]); from gpu_parts.build import found; print(json.dumps(found()))"


def run(context: Context) -> None:
    if absent := missing_packages(NEEDED):
        context.absent(f"not installed here: {', '.join(absent)}")
    if absent := missing_packages(ONLY_MODELS):
        context.absent(f"not installed here: {', '.join(absent)}; the parts block and flux12b need them")
    context.case("install", lambda: dry_install() if context.dry else install(context.seconds_left), needs=60)
    facts = context.case("found", found if context.dry else found_by_another)
    if facts and not context.dry and not facts["cuda kernels"]:
        context.failures.append("found: no CUDA kernels were built; the build's own output says why")


def install(seconds: float) -> dict[str, Any]:
    """Raises RuntimeError with the last lines of a build that failed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("HALFBYTE_CUDA_ARCHS", "HALFBYTE_SIMT")}
    start = time.perf_counter()
    done = subprocess.run(INSTALL, env=environment, capture_output=True, text=True, timeout=max(seconds, 1))
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


def found_by_another() -> dict[str, Any]:
    command = [sys.executable, "-P", "-c", LOOK, str(ROOT / "bench")]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
