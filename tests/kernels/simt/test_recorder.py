"""A recorded launch names the kernel as nvcc's PTX does, so that the same launch can be run from the PTX."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
CSRC = FOLDER.parents[2] / "csrc"
REFUSED = {"a block of 48 threads", "too much shared memory", "no blocks"}  # no device takes these, so nothing is recorded


def test_launch_is_recorded_instead_of_run(checks):
    symbol, argument_bytes, threads = checks.symbol_of("no barrier")
    assert symbol.startswith("_ZN8halfbyte9sum_tiles")
    assert (argument_bytes, threads) == (16, 64)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("source", ["pipelines", "faulty_kernels", "instructions"])
def test_symbols_are_the_entries_of_the_ptx(checks, source, tmp_path):
    command = ["nvcc", "-std=c++17", "-fmad=false", "-arch=compute_90a", "-ptx", f"-I{CSRC}", FOLDER / f"{source}.cu"]
    subprocess.run([*command, "-o", tmp_path / "kernels.ptx"], check=True)
    entries = set(re.findall(r"\.entry (\w+)", (tmp_path / "kernels.ptx").read_text()))
    names = re.findall(r'^    \{"(.*?)", start', (FOLDER / f"{source}.cu").read_text(), re.M)
    assert names
    assert {checks.symbol_of(name)[0] for name in names if name not in REFUSED} == entries
