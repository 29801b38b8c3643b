"""The conformance suite on this device, one pytest process per slice; anything but green forbids every later speed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from .commands import run as run_command
from .context import Context, OutOfTime, missing_packages
from .record import ROOT

SUITE = ROOT / "tests/kernels/test_conformance.py"
AGREES = "test_agrees_with_the_reference_and_is_deterministic"
# Slice -> pytest's -k. Together they are the whole suite; each costs its processes' start.
SLICES = {
    "cuda": f"{AGREES} and -cuda-",
    **{f"triton {dtype}": f"{AGREES} and -triton- and {dtype}" for dtype in ("bfloat16", "float32")},
    "rest": f"not {AGREES} or not (-cuda- or -triton-)",
}
DRY_SLICES = {"two tests": f"{AGREES} and rel_l1-reference-short or test_every_op_has_example_calls"}
COUNTS = ("tests", "failures", "errors", "skipped")
NO_TESTS = 5
PYTEST = [sys.executable, "-P", "-m", "pytest", "-q", "--maxfail=200", "--tb=short", "--no-header", "-p", "no:cacheprovider"]
# The largest tests hold more, most of them a fifth.
BYTES_EACH = 8 << 30


def run(context: Context) -> None:
    if missing := missing_packages(["pytest"]):
        raise RuntimeError(f"{missing[0]} is not installed, so no conformance run is possible")
    if missing_packages(["xdist"]):
        context.absent("pytest-xdist is not installed: the tests run one by one, and one that breaks the GPU breaks those after it")
    for name, keyword in (DRY_SLICES if context.dry else SLICES).items():
        context.case(name, lambda: suite(keyword, context), needs=60)
    kernels = [case.get("tests") for name, case in context.entry["cases"].items() if name.startswith(("cuda", "triton"))]
    if not context.dry and not any(kernels) and not context.entry["failed"]:
        context.failures.append("no op has a kernel here, neither CUDA nor Triton")


def suite(keyword: str, context: Context) -> dict[str, Any]:
    """Raises RuntimeError when a test fails, OutOfTime when the slice does not end in time."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [*PYTEST, f"--junitxml={report}", "-k", keyword, str(SUITE)]
        if not context.dry and not missing_packages(["xdist"]):
            command += ["-n", str(workers())]
        try:
            done = run_command(command, context.seconds_left, context.log, cwd=ROOT)
        except subprocess.TimeoutExpired:
            raise OutOfTime(f"the suite did not end in time at -k {keyword!r}") from None
        counts = counts_of(report)
    if done.returncode == NO_TESTS:
        return dict.fromkeys(COUNTS, 0) | {"keyword": keyword}
    if done.returncode or not counts.get("tests"):
        told = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR", "E  "))]
        raise RuntimeError(f"red: {counts}; {' | '.join(told) or done.stderr[-500:]}")
    return counts | {"keyword": keyword}


def workers() -> int:
    import torch

    room = torch.cuda.mem_get_info()[0] // BYTES_EACH if torch.cuda.is_available() else 1
    return max(1, min(room, os.cpu_count() or 1))


def counts_of(report: Path) -> dict[str, int]:
    if not report.is_file():
        return {}
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    return {name: sum(int(suite.get(name, 0)) for suite in suites) for name in COUNTS}
