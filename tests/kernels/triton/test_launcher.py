"""Every kernel goes through the launcher that Triton makes for it: C code, compiled here, on a driver that only checks.

Compiling a kernel does not show that its arguments, tuples and descriptors among them, can be passed to it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton

from halfbyte.ops.triton.register import TABLES

HERE = Path(__file__).parent
INCLUDE = Path(triton.__file__).parent / "backends/nvidia/include"
# One op of each file stands for those that pass the same arguments; others have the GLU's descriptors and the next layer.
CALLED = [*(next(iter(table)) for table in TABLES.values()), "gemm_w8a8_act", "gemm_w8a8_act_quantize"]

pytestmark = [
    pytest.mark.skipif(shutil.which("gcc") is None, reason="Triton's launchers are C code, and gcc is not here"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's own driver is loaded, and the conformance suite launches on it"),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What the driver was asked for, line by line."""
    folder = tmp_path_factory.mktemp("driver")
    library = folder / "libcuda.so.1"
    options = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", f"-I{INCLUDE}", "-o", str(library)]
    subprocess.run(["gcc", *options, str(HERE / "absent_driver.c")], check=True)
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, str(HERE / "launch_calls.py"), str(library), str(folder), *CALLED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr.splitlines()


def between_calls(told):
    found = {}
    for line in told:
        if line.startswith("call "):
            found[line.removeprefix("call ")] = answers = []
        elif line.startswith(("launched ", "map ")):
            answers.append(line)
    return found


def test_every_call_launches(told):
    found = between_calls(told)
    assert list(found) == CALLED
    assert all(any(line.startswith("launched ") for line in answers) for answers in found.values()), found


def test_products_on_descriptors_are_given_maps_that_the_driver_takes(told):
    found = {call: [line for line in answers if line.startswith("map ")] for call, answers in between_calls(told).items()}
    assert found["gemm_w8a8"] == ["map of rank 2", "map of rank 2"]
    assert found["gemm_w8a8_act"] == ["map of rank 2", "map of rank 3"]
