"""A part of python bench/gpu.py goes on without what faulted, died or never ended, and says what that was."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
sys.path.insert(0, str(BENCH))

from gpu_parts import build, commands, context, faults, machine, record, run  # noqa: E402
from gpu_parts.log import Log, shortened  # noqa: E402

# In place of bench/gpu.py: a part whose first candidates end its process each in its own way.
PART = f"""
import os, signal, sys, time
sys.path.insert(0, {str(BENCH)!r})
from pathlib import Path
from gpu_parts import context, faults
from gpu_parts.record import Record

folder = Path(sys.argv[sys.argv.index("--out") + 1])
here = context.Context("ops", Record(folder / "x.json"), "this", folder, False, 100, print)
context.clocks = lambda: {{}}
lost = []
context.is_lost = lambda device: bool(lost)

def fault():
    lost.append(True)
    raise RuntimeError("CUDA error: an illegal memory access was encountered")

ENDS = {{"fault": fault, "die": lambda: os.kill(os.getpid(), signal.SIGSEGV), "hang": lambda: time.sleep(60), "fine": lambda: None}}

def measure():
    ran = []
    for name, call in ENDS.items():
        if not here.reason_against(name):
            with here.candidate(name, 1):
                call()
                ran.append(name)
    return {{"ran": ran}}

def part(here):
    here.case("several", measure)
    here.case("broken", fault)
    here.case("last", dict)

here.run(part, False)
"""


@pytest.fixture
def ops_part(tmp_path, monkeypatch):
    script = tmp_path / "bench" / "gpu.py"
    script.parent.mkdir()
    script.write_text(textwrap.dedent(PART))
    monkeypatch.setattr(run, "ROOT", tmp_path)
    run.in_own_processes("ops", tmp_path, tmp_path / "x.json", time.monotonic() + 100)
    return record.Record(tmp_path / "x.json").part("ops")


def test_every_fault_is_left_out_and_the_others_go_on(ops_part, tmp_path):
    assert ops_part["cases"]["several"]["ran"] == ["fine"] and "last" in ops_part["cases"]
    assert ops_part["status"] == "failed" and set(ops_part["failed"]) == {"broken"}
    assert {name: reason.split(" in ")[0] for name, reason in ops_part["faults"].items()} == {
        "fault": "it faulted",
        "die": "its process was ended by SIGSEGV",
        "hang": "it did not end, or ended its process",
    }
    assert all(name in ops_part["reason"] for name in ("fault", "die", "hang", "broken"))
    told = (tmp_path / "x.log").read_text()
    assert "illegal memory access" in told and "Timeout" in told and "time.sleep(60)" not in told.partition("Timeout")[0]


def test_a_process_that_dies_outside_of_a_case_is_not_started_again(tmp_path):
    kept = record.Record(tmp_path / "x.json")
    kept.part("ops").update(status="running", doing={}, failed={}, faults={})
    assert not kept.blame("ops", "it ended")
    kept.part("ops").update(status="running", doing={"case": "a"})
    assert kept.blame("ops", "it ended") and kept.part("ops")["failed"] == {"a": "it ended"}


def test_a_build_that_does_not_end_says_so_and_one_that_fails_says_why(tmp_path, monkeypatch):
    log = Log(tmp_path / "x.json")
    monkeypatch.setattr(build, "INSTALL", ["sleep", "30"])
    with pytest.raises(context.OutOfTime, match="kernels that it compiled are kept"):
        build.install(1, log)
    monkeypatch.setattr(build, "INSTALL", ["sh", "-c", "echo compiled; echo nvcc died >&2; exit 1"])
    with pytest.raises(RuntimeError, match="compiled \\| nvcc died"):
        build.install(20, log)


def test_what_ended_a_part_from_outside_is_told_with_what_had_failed(tmp_path, capsys):
    kept = record.Record(tmp_path / "x.json")
    kept.part("ops").update(status="running", failed={"a": "it faulted"})
    assert run.conclude(kept, "ops", run.Console(width=200)) == "partial" and "a: it faulted" in capsys.readouterr().out


def test_the_shortest_limit_counts(monkeypatch, tmp_path):
    armed = []
    monkeypatch.setattr(faults.faulthandler, "enable", lambda file: None)
    monkeypatch.setattr(faults.faulthandler, "dump_traceback_later", lambda seconds, exit, file: armed.append(round(seconds)))
    monkeypatch.setattr(faults.faulthandler, "cancel_dump_traceback_later", lambda: armed.append(None))
    watchdog = faults.Watchdog(None)
    with watchdog.watch(50), watchdog.watch(20), watchdog.watch(90):
        pass
    assert armed == [50, 20, 20, 20, 50, None]


def red_context(folder, although_red):
    arguments = "ops", record.Record(folder / "x.json"), "this", folder, True, 100, lambda text: None, although_red
    return context.Context(*arguments)


def test_speeds_of_a_red_source_are_measured_only_when_asked_for_and_say_so(tmp_path):
    def part(here):
        here.case("a", dict)

    assert red_context(tmp_path, False).run(part, True)["status"] == "refused"
    entry = red_context(tmp_path, True).run(part, True)
    assert entry["status"] == "done" and "no conformance run" in entry["measured although"] and set(entry["cases"]) == {"a"}


def test_a_command_that_leaves_a_process_behind_is_not_waited_for(tmp_path):
    log, start = Log(tmp_path / "x.json"), time.monotonic()
    script = "import subprocess, sys, time; subprocess.Popen(['sleep', '30']); print('said', flush=True); time.sleep(30)"
    with pytest.raises(subprocess.TimeoutExpired):
        commands.run([sys.executable, "-c", script], 1, log)
    assert time.monotonic() - start < 20 and "said" in log.path.read_text() and "did not end in time" in log.path.read_text()
    done = commands.run([sys.executable, "-c", "import sys; print(1); print(2, file=sys.stderr); sys.exit(3)"], 20, log)
    assert (done.returncode, done.stdout, done.stderr) == (3, "1\n", "2\n")


def test_a_field_that_this_driver_does_not_know_costs_itself(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\ncase \"$*\" in *new.field*) exit 2;; *name,other*) echo 'A GPU, 7';; *name*) echo A GPU;; *) echo 7;; esac\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert machine.query(("name", "other")) == {"name": "A GPU", "other": "7"}
    assert machine.query(("name", "new.field", "other")) == {"name": "A GPU", "other": "7"}


def test_cuda_is_found_where_the_path_leaves_it_out(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    monkeypatch.setattr(machine, "TOOLKIT", tmp_path)
    machine.add_toolkit_to_path()
    assert os.environ["PATH"] == str(tmp_path / "nowhere")
    (tmp_path / "nvcc").write_text("#!/bin/sh\n")
    machine.add_toolkit_to_path()
    assert os.environ["PATH"].split(os.pathsep)[-1] == str(tmp_path)


def test_a_long_error_keeps_its_beginning_and_its_end():
    text = shortened("begin " + "x" * 5000 + " end")
    assert text.startswith("begin") and text.endswith("end") and len(text) < 2100


def test_no_module_of_the_parts_needs_what_gpu_machines_lack():
    """diffusers is needed by two parts alone, and they say so."""
    names = sorted(path.stem for path in (BENCH / "gpu_parts").glob("*.py"))
    code = f"""
import importlib, sys
sys.path.insert(0, {str(BENCH)!r})
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("diffusers", "peft"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
for name in {names!r}:
    importlib.import_module("gpu_parts." + name)
import halfbyte.cli, halfbyte.convert, halfbyte.layers, halfbyte.models.fused
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200, env=os.environ | {"TRITON_INTERPRET": "1"})
