"""The PTX kept beside its sources, for machines without nvcc, is what nvcc makes of them."""

import re
import shutil
from pathlib import Path

import pytest

from halfbyte.testing.ptx.compile import PtxModule

HERE = Path(__file__).parent


@pytest.mark.parametrize("source", sorted(HERE.glob("*.cu")), ids=lambda path: path.stem)
def test_checked_in_ptx_is_current(source):
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc")
    arch = "90a" if source.stem.startswith("sm90_") else "80"
    now, kept = PtxModule(source, arch).text, source.with_suffix(".ptx").read_text()
    build = re.compile(r"Compiler Build ID: \S+")
    if build.search(now).group() != build.search(kept).group():
        pytest.skip(f"nvcc here is not that of the checked-in PTX ({build.search(kept).group()})")
    assert now == kept, (
        f"nvcc -ptx -arch=compute_{arch} -std=c++17 -O3 -fmad=false -Icsrc/cuda {source.name} gives something else"
    )
