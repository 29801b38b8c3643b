"""Environment variables are read in one place, and a bad value is a sentence."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from halfbyte import env

ROOT = Path(__file__).parents[1]


def test_defaults(monkeypatch, tmp_path):
    for variable in env.VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert env.settings() == {
        "HALFBYTE_CACHE_DIR": tmp_path / "halfbyte",
        "HALFBYTE_BACKEND": None,
        "HALFBYTE_ATTENTION": "auto",
        "HALFBYTE_CPU_KIND": "auto",
        "HALFBYTE_CPU_ISA": "auto",
        "HALFBYTE_CUDA_ARCHS": None,
        "HALFBYTE_SIMT": None,
        "HALFBYTE_BUILD_JOBS": None,
    }


def test_an_empty_value_is_the_default(monkeypatch):
    monkeypatch.setenv("HALFBYTE_CPU_KIND", "")
    assert env.setting("HALFBYTE_CPU_KIND") == "auto"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("HALFBYTE_BACKEND", "gpu", "HALFBYTE_BACKEND: one of cuda, triton, cpu, simt, reference needed, got 'gpu'"),
        ("HALFBYTE_CPU_KIND", "fp8", "HALFBYTE_CPU_KIND: one of auto, float32, bfloat16, int8 needed, got 'fp8'"),
        ("HALFBYTE_CACHE_DIR", __file__, "HALFBYTE_CACHE_DIR: a folder, or a path where one can be made, needed, got "),
        ("HALFBYTE_BUILD_JOBS", "0", "HALFBYTE_BUILD_JOBS: a whole number above 0 needed, got '0'"),
    ],
)
def test_a_bad_value_is_refused(monkeypatch, name, text, message):
    monkeypatch.setenv(name, text)
    with pytest.raises(ValueError, match=re.escape(message)):
        env.settings()


def test_backends_are_those_of_the_registry():
    from halfbyte.ops import BACKENDS

    assert env.BACKENDS == BACKENDS


def test_every_variable_in_the_sources_is_listed():
    sources = [*(ROOT / "engine").rglob("*.py"), ROOT / "setup.py"]
    used = {name for path in sources for name in re.findall(r"\bHALFBYTE_[A-Z_]+\b", path.read_text())}
    assert used <= {variable.name for variable in env.VARIABLES}


def test_machine_is_what_doctor_prints():
    machine = env.machine()
    assert machine.cpu and machine.threads >= 1 and machine.torch
    assert set(machine.flags) <= set(env.CPU_FLAGS)
    json.dumps(dataclasses.asdict(machine))
    rows = machine.findings()
    assert all(what and found and meaning for what, found, meaning in rows)
    assert {"CPU", "GPU", "C++ extension", "nvcc", "triton", "torch"} <= {what for what, _, _ in rows}


def test_machine_without_anything():
    bare = env.Machine("a CPU", (), 1, (), None, False, None, "2.13", None, None)
    found = {what: (value, meaning) for what, value, meaning in bare.findings()}
    assert found["GPU"] == ("none", "everything runs on the CPU")
    assert found["C++ extension"] == ("missing", "slower PyTorch code runs")
    assert found["CUDA kernels"] == ("none", "no GPU here needs them")
    assert found["nvcc"][0] == found["triton"][0] == found["diffusers"][0] == "none"


def test_an_unknown_variable_is_reported(monkeypatch):
    monkeypatch.setenv("HALFBYTE_CASH_DIR", "/x")
    assert ("HALFBYTE_CASH_DIR", "set", "no such variable, so it has no effect") in env.machine().findings()
