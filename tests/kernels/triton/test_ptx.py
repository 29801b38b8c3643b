"""What Triton makes of the kernels computes what the reference does: its PTX, inline assembly included, run on a CPU.

Reads and writes outside the tensors are faults there, and the operands lie in poison.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from halfbyte.ops.triton.register import TABLES

pytest.importorskip("triton")
SCRIPT = Path(__file__).parent / "run_on_ptx.py"


# sm_100 and sm_120 multiply by instructions that the interpreter of PTX does not know.
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("file", TABLES)
def test_the_ptx_agrees_with_the_reference(file, capability):
    ops = list(TABLES[file])
    words = [sys.executable, "-P", SCRIPT, str(capability), *ops]
    done = subprocess.run(words, env=os.environ | {"TRITON_INTERPRET": "0"}, capture_output=True, text=True)
    assert not done.returncode, done.stderr[-3000:]
    calls = [json.loads(line) for line in done.stdout.splitlines()]
    assert [call for call in calls if call["errors"]] == []
    assert {call["op"] for call in calls if call["kernels"]} == set(ops)
