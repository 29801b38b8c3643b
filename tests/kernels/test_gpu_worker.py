"""A test that breaks the GPU, or never ends, costs itself: pytest-xdist names it and runs the others in another process."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("xdist")

CONFTEST = """
import functools, torch
from halfbyte.testing import gpu_worker

broken = []

def synchronize():
    if broken:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

torch.cuda.is_available, torch.cuda.synchronize = lambda: True, synchronize
gpu_worker.ends_when_broken = functools.partial(gpu_worker.ends_when_broken, 1)
exec(open({hooks!r}).read())
"""
TESTS = """
import time, conftest

def test_before(): pass
def test_faults(): conftest.broken.append(True)
def test_between(): assert not conftest.broken
def test_never_ends(): time.sleep(60)
def test_after(): assert not conftest.broken
"""


def test_the_others_run_and_the_culprits_are_named(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST.format(hooks=str(Path(__file__).parent / "conftest.py")))
    (tmp_path / "test_planted.py").write_text(TESTS)
    report = tmp_path / "report.xml"
    options = ["-q", "-n", "1", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), f"--junitxml={report}", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pytest", *options], cwd=tmp_path, capture_output=True, timeout=200)
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    crashed = [case.find("error").get("message", "") for case in cases if case.find("error") is not None]
    passed = {case.get("name") for case in cases if len(case) == 0}
    assert {"test_before", "test_between", "test_after"} <= passed
    assert [next(name for name in ("test_faults", "test_never_ends") if name in text) for text in crashed] == ["test_faults", "test_never_ends"]
