"""The disassemblers, or the reason to skip; cubins are kept for the session, or across sessions where HALFBYTE_CACHE_DIR says."""

import os
from pathlib import Path

import pytest

from halfbyte.testing.sass import PACKAGES, ToolMissing, tool


@pytest.fixture(scope="session")
def cubins(tmp_path_factory) -> Path:
    try:
        for name in (*PACKAGES, "c++filt", "readelf"):
            tool(name)
    except ToolMissing as missing:
        pytest.skip(str(missing))
    kept = os.environ.get("HALFBYTE_CACHE_DIR")
    return (Path(kept) if kept else tmp_path_factory.mktemp("cache")) / "cubins"
