"""Every Triton op compiles for every GPU it is made for: without spilled registers, and to the tensor cores it is meant for."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from halfbyte.ops.triton.register import TABLES
from halfbyte.testing.sass import ToolMissing, tool
from halfbyte.testing.triton import CAPABILITIES

pytest.importorskip("triton")
HERE = Path(__file__).parent
BENCH = HERE.parents[2] / "bench" / "triton_gates.py"
OPS = sorted(op for table in TABLES.values() for op in table)


@pytest.fixture(autouse=True)
def disassembler():
    try:
        tool("cuobjdump")
    except ToolMissing as error:
        pytest.skip(str(error))


def run(script, *arguments):
    """In a process that compiles: this one may have been told to interpret kernels, which cannot be taken back."""
    environment = os.environ | {"TRITON_INTERPRET": "0", "HALFBYTE_BACKEND": ""}
    return subprocess.run([sys.executable, "-P", script, *map(str, arguments)], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_op_compiles_and_holds_its_gates(capability, tmp_path):
    done = run(BENCH, "--quick", "--arch", capability, "--json", tmp_path / "found.json")
    assert done.returncode in (0, 1), done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["failures"] == []
    assert sorted({kernel["op"] for kernel in found["kernels"]}) == OPS
    assert all(kernel["registers"] <= 255 for kernel in found["kernels"])


def test_a_kernel_that_spills_is_caught():
    done = run(HERE / "planted.py", 1024, 16384)
    assert not done.returncode, done.stderr
    fits, spills = (ast.literal_eval(line.split(" ", 1)[1]) for line in done.stdout.splitlines())
    assert fits == []
    assert len(spills) == 1 and "no local memory is allowed" in spills[0]


def test_a_kernel_without_the_opcode_it_needs_is_caught():
    done = run(HERE / "planted.py", "opcode")
    assert not done.returncode, done.stderr
    assert "gemm_w8a8 int8 for sm_90: IGMMA is needed, got none" in done.stdout
