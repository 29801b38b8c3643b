"""The two commands in bench/: what they print, write and exit with."""

import importlib.util
import json
import random
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[3] / "bench"
PLANTED = Path(__file__).parent / "planted"


def script(name):
    spec = importlib.util.spec_from_file_location(name, BENCH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def gates_command(cubins, monkeypatch):
    module = script("static_gates")
    monkeypatch.setattr(module, "SOURCES", PLANTED)
    monkeypatch.setenv("HALFBYTE_CACHE_DIR", str(cubins.parent))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["static_gates.py", *arguments])
        with pytest.raises(SystemExit) as stopped:
            module.main()
        return stopped.value.code

    return run


def test_all_gates_pass(gates_command, capsys):
    assert gates_command("--kernel", "known_mix", "--arch", "86") == 0
    printed = capsys.readouterr().out
    assert "2 IMMA.16832.S8.S8" in printed and "modelled" in printed and printed.endswith("1 kernels, 0 with failing gates\n")


def test_a_failing_gate_fails_the_command(gates_command, capsys, tmp_path):
    assert gates_command("--json", str(tmp_path / "found.json")) == 1
    assert "no local memory is allowed" in " ".join(capsys.readouterr().out.split())
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(each["kernel"], each["arch"], bool(each["failures"])) for each in found] == [
        ("known_mix", "80", False), ("known_mix", "86", False), ("spills", "86", True)]  # fmt: skip
    assert found[1]["loop"]["accumulator_entries"] == 8 and found[2]["local_accesses"] > 0


def test_an_unknown_architecture_is_refused(gates_command):
    assert gates_command("--arch", "70") == "70: one of 80, 86 is needed"


@pytest.mark.parametrize("n", [5, 6, 15, 20])
def test_the_interval_holds_the_median_as_often_as_it_says(n):
    draw = random.Random(n)
    interval = script("build_size").median_interval
    found = [interval([draw.gauss(0, 1) for _ in range(n)]) for _ in range(2000)]
    held = sum(each["low"] <= 0 <= each["high"] for each in found) / len(found)
    # Five samples cannot do better than their extremes: 1 - 2 / 2**5.
    assert 0.92 < held < 0.99 and (n == 5 or held > 0.94)


def test_libraries_that_an_extension_loads():
    module = script("build_size")
    import torch

    loads = module.needed(next(Path(torch.__file__).parent.glob("lib/libtorch_cpu.so")))
    assert "libc.so.6" in loads and [name for name in loads if module.UNWANTED.match(name)] == ["libc10.so"]
    assert not module.UNWANTED.match("libstdc++.so.6") and module.UNWANTED.match("libcudart.so.13")
