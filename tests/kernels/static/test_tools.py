"""Finding the disassemblers, and what is said when they are missing."""

import importlib.util
from types import SimpleNamespace

import pytest

from halfbyte.testing.sass import tools
from halfbyte.testing.sass.tools import ToolMissing, find, run, tool


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    tools.tool.cache_clear()
    yield
    tools.tool.cache_clear()


def program(path):
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\necho refused >&2; exit 3\n")
    path.chmod(0o755)
    return str(path)


def test_missing_disassemblers_are_both_named():
    with pytest.raises(ToolMissing, match="nvcc, cuobjdump, nvdisasm: .*nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm"):
        tool("nvdisasm")
    with pytest.raises(ToolMissing, match="readelf: .*binutils"):
        tool("readelf")


def test_found_under_cuda_home(monkeypatch, tmp_path):
    path = program(tmp_path / "bin" / "cuobjdump")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert find("cuobjdump") == path


def test_found_in_a_wheel(monkeypatch, tmp_path):
    path = program(tmp_path / "nvidia" / "cu13" / "bin" / "nvdisasm")
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path / "nvidia")])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "nvidia" else None)
    assert find("nvdisasm") == path


def test_a_failing_tool_says_what_it_complained_of(monkeypatch, tmp_path):
    program(tmp_path / "bin" / "cuobjdump")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(RuntimeError, match="cuobjdump -x: refused"):
        run("cuobjdump", "-x")
