"""python bench/gpu.py: every part in a dry run, what it refuses, how it goes on, and the README's rows."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

from halfbyte.env import installed

BENCH = Path(__file__).parents[2] / "bench"
GREEN = {"status": "done", "source": "this", "cases": {}}


def script(name):
    spec = importlib.util.spec_from_file_location(name, BENCH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gpu = script("gpu")
from gpu_parts import conformance, context, record, run, sanitizer, timing  # noqa: E402
from gpu_parts.log import Log  # noqa: E402
from gpu_parts.op_classes import class_of  # noqa: E402
from gpu_parts.show import show  # noqa: E402


@pytest.fixture(autouse=True)
def dry_run_settings(monkeypatch):
    """A dry run sets these for its own process."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("HALFBYTE_CPU_KIND", "float32")


def read(folder):
    return json.loads((folder / "dry_run.json").read_text())


def test_a_dry_run_goes_through_every_part_and_reports_no_figures(tmp_path, capsys):
    assert gpu.main(["--dry-run", "--out", str(tmp_path)]) == 0
    found, printed = read(tmp_path), capsys.readouterr().out
    assert {name: part["status"] for name, part in found["parts"].items()} == dict.fromkeys(gpu.PARTS, "done")
    assert found["dry_run"] and found["gpu"] is None and printed.count("dry run: no figures") == 2
    linear = found["parts"]["ops"]["cases"]["linear flux.qkv"]
    assert linear["baseline"] in ("F.linear bf16", "max-autotune bf16")
    assert set(linear["samples us"]) > {"reference int8, rank 0", "reference int8, rank 32"}
    assert linear["speed-up"]["reference int8, rank 32"]["low"] > 0
    assert linear["time of rank 32 over rank 0"]["reference int8"]["low"] > 0
    runs = found["parts"]["flux12b"]["cases"]["4 steps"]
    assert all(runs["finite"].values())
    assert runs["steps of cached runs"]["low-bit eager, cached"] == {"computed": 3, "forecast": 1}
    assert sum(found["parts"]["flux12b"]["cases"]["time by class, low-bit"]["ms"].values()) > 0
    for name in ("double", "single"):
        assert 0 < found["parts"]["block"]["cases"][name]["relative RMS to bf16"]["low-bit"] < 0.2
    before = {name: part["cases"] for name, part in found["parts"].items()}
    assert gpu.main(["--dry-run", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("done before") == len(gpu.PARTS)
    assert {name: part["cases"] for name, part in read(tmp_path)["parts"].items()} == before


def test_a_build_that_is_not_here_is_made_again(tmp_path, monkeypatch, capsys):
    for installed, expected in ((True, "build: done before"), (False, "build: done, ")):
        assert gpu.main(["--dry-run", "--out", str(tmp_path), "--parts", "build"]) == 0
        capsys.readouterr()
        monkeypatch.setattr(run, "is_installed", lambda dry, installed=installed: installed)
        assert gpu.main(["--dry-run", "--out", str(tmp_path), "--parts", "build"]) == 0
        assert expected in capsys.readouterr().out


def test_no_speed_without_a_conformance_run(tmp_path, capsys):
    assert gpu.main(["--dry-run", "--out", str(tmp_path), "--parts", "ops"]) == 1
    part = read(tmp_path)["parts"]["ops"]
    assert part["status"] == "refused" and not part["cases"] and "no conformance run" in part["reason"]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (GREEN, None),
        (GREEN | {"status": "failed", "reason": "red"}, "the conformance run is failed: red"),
        (GREEN | {"status": "partial"}, "the conformance run is partial: it did not end"),
        (GREEN | {"source": "another"}, "of another source"),
    ],
)
def test_only_a_green_conformance_run_of_the_same_source_counts(tmp_path, entry, reason):
    kept = record.Record(tmp_path / "x.json")
    kept.data["parts"]["conformance"] = entry
    refusal = kept.reason_against_speed("this")
    assert refusal is None if reason is None else reason in refusal


def test_the_suite_is_red_when_a_test_fails(tmp_path, monkeypatch):
    suite = tmp_path / "test_planted.py"
    suite.write_text("def test_fails():\n    assert 1 == 2\n")
    monkeypatch.setattr(conformance, "SUITE", suite)
    here = part_context(tmp_path, "conformance")
    entry = here.run(lambda part: part.case("planted", lambda: conformance.suite("test_fails", part)), False)
    assert entry["status"] == "failed" and "'failures': 1" in entry["reason"] and not entry["cases"]


def part_context(folder, name="ops", budget=100.0):
    return context.Context(name, record.Record(folder / "x.json"), "this", folder, True, budget, lambda text: None)


def test_a_part_that_runs_out_of_time_goes_on_where_it_stopped(tmp_path):
    made = []

    def part(here):
        def measure(name):
            made.append(name)
            here.deadline -= 100 * (name == "first")
            return {}

        for name in ("first", "second"):
            here.case(name, lambda: measure(name))

    entry = part_context(tmp_path).run(part, False)
    assert entry["status"] == "partial" and "second needs" in entry["reason"] and set(entry["cases"]) == {"first"}
    entry = part_context(tmp_path).run(part, False)
    assert entry["status"] == "done" and made == ["first", "second"] and "reason" not in entry


def test_a_case_that_fails_leaves_the_others_and_is_tried_again(tmp_path):
    broken = [True]

    def part(here):
        here.case("breaks", lambda: 1 / 0 if broken else {})
        here.case("works", dict)

    entry = part_context(tmp_path).run(part, False)
    assert entry["status"] == "failed" and "breaks: ZeroDivisionError" in entry["reason"] and set(entry["cases"]) == {"works"}
    assert "ZeroDivisionError" in (tmp_path / "x.log").read_text()
    broken.clear()
    assert part_context(tmp_path).run(part, False)["status"] == "failed"  # the same run goes on without it
    kept = record.Record(tmp_path / "x.json")
    kept.try_again("ops")
    kept.save()
    assert part_context(tmp_path).run(part, False)["status"] == "done"


def test_results_of_another_source_are_dropped(tmp_path):
    part_context(tmp_path).run(lambda here: here.case("old", dict), False)
    later = context.Context("ops", record.Record(tmp_path / "x.json"), "that", tmp_path, True, 100, lambda text: None)
    assert set(later.run(lambda here: here.case("new", dict), False)["cases"]) == {"new"}


def test_a_part_that_does_not_end_is_ended_with_what_it_started(tmp_path, monkeypatch):
    started = tmp_path / "pid"
    stuck = tmp_path / "bench" / "gpu.py"
    stuck.parent.mkdir()
    stuck.write_text(
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(started)!r}, 'w').write(str(child.pid))\n"
        "child.wait()\n"
    )
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "LONGEST_START", 6)
    run.in_own_process("ops", tmp_path, 0)
    # The signal was sent; when the kernel delivers it is the kernel's affair.
    assert any(is_gone(int(started.read_text())) or time.sleep(0.1) for _ in range(100))


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_without_a_gpu_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="no GPU"):
        gpu.main(["--out", str(tmp_path)])


class Event:
    """Of a clock that calls advance."""

    now = 0.0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.time = Event.now

    def elapsed_time(self, end):
        return end.time - self.time


def test_candidates_are_timed_in_turn_after_the_cache_was_emptied(monkeypatch):
    for name, fake in {"Event": Event, "synchronize": lambda: None, "get_device_properties": lambda device: FakeGpu}.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.Tensor, "sum", lambda tensor: order.append("flush"))
    order, empty = [], torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, device, **options: empty(*size, **options))
    stopwatch = timing.Stopwatch("cuda")

    def call(name, milliseconds):
        order.append(name)
        Event.now += milliseconds

    candidates = {"a": lambda: call("a", 1.0), "b": lambda: call("b", 2.0)}
    assert stopwatch.interleave(candidates, 2, warmup=1) == {"a": [0.001, 0.001], "b": [0.002, 0.002]}
    assert order == ["a", "b", "flush", "a", "flush", "b", "flush", "b", "flush", "a"]


class FakeGpu:
    L2_cache_size = 1024


@pytest.mark.parametrize(("found", "told"), [(0, None), (2, "Invalid __global__ read")])
def test_what_the_sanitizer_finds_fails_the_part(tmp_path, found, told):
    tool = tmp_path / "compute-sanitizer"
    lines = ("#!/bin/sh", "echo 7 calls", f"echo '========= {told} at kernel'", f"echo '========= ERROR SUMMARY: {found} errors'")
    tool.write_text("\n".join(lines) + "\n")
    tool.chmod(0o755)
    if told is None:
        assert sanitizer.sanitized(str(tool), "memcheck", "cuda", 20, Log(tmp_path / "x.json")) == {"tool": "memcheck", "found": 0, "calls": 7}
    else:
        with pytest.raises(RuntimeError, match=told):
            sanitizer.sanitized(str(tool), "memcheck", "cuda", 20, Log(tmp_path / "x.json"))


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16", "attention"),
        ("void flash_fwd_kernel<Flash_fwd_kernel_traits<128>>", "attention"),
        ("nvjet_tst_128x256_64x4_1x2_h_bz_TNT", "matrix products"),
        ("halfbyte::gemm_w8a8_kernel<256>", "matrix products"),
        ("_quantize_act_kernel", "quantize"),
        ("qk_norm_rope_kernel", "q/k norm and RoPE"),
        ("Memcpy DtoD (Device -> Device)", "copies"),
        ("triton_red_fused_add_native_layer_norm_0", "elementwise and norms"),
    ],
)
def test_kernels_are_sorted_by_name(kernel, expected):
    assert class_of(kernel) == expected


@pytest.mark.skipif(installed("diffusers") is None, reason="the blocks are diffusers'")
def test_blocks_count_the_work_of_flux():
    from diffusers import FluxTransformer2DModel
    from gpu_parts.block import flop_of
    from gpu_parts.sizes import FULL

    with torch.device("meta"):
        model = FluxTransformer2DModel(**FULL.flux | {"num_layers": 1, "num_single_layers": 1})
        arguments = {"hidden_states": torch.empty(1, 4096, 3072), "encoder_hidden_states": torch.empty(1, 512, 3072)}
    total = 19 * flop_of(model.transformer_blocks[0], arguments) + 38 * flop_of(model.single_transformer_blocks[0], arguments)
    attention = 57 * 4 * 4608**2 * 3072
    assert total - attention == pytest.approx(59.5e12, rel=0.01) and attention == pytest.approx(14.9e12, rel=0.01)


SPEED = {"estimate": 1.5, "low": 1.4, "high": 1.6}
MEASURED = {
    "kind": "gpu",
    "gpu": "A GPU",
    "dry_run": False,
    "machine": {"gpu": {"driver_version": "1"}, "versions": {"torch": "2", "triton": "3"}},
    "parts": {
        "conformance": GREEN,
        "ceilings": GREEN | {"cases": {"copy": {"TB/s": {"copy": 4.0}}}},
        "ops": GREEN
        | {
            "cases": {
                "linear x": {
                    "m, n, k": [1, 2, 3],
                    "baseline": "b",
                    "median us": {"b": 9.6},
                    "speed-up": {"cuda int8, rank 32": SPEED, "other": SPEED},
                },
                "quantize x": {"share of the measured copy": {"cuda int8": 0.8, "copy of as many bytes": 1.0}},
            }
        },
        "flux12b": GREEN
        | {
            "cases": {
                "50 steps": {"median s": {"bf16": 6.0, "low-bit": 4.0}, "speed-up": {"low-bit": SPEED}},
                "memory, 4-bit": {"peak bytes": 6.9e9},
            }
        },
    },
}


def test_the_readme_shows_what_a_record_holds():
    rows = script("readme_table").gpu_section(MEASURED)
    assert "| x | 1 x 2 x 3 | 10 us | 1.50x [1.40, 1.60] |" in rows
    assert "| bf16 | 6.00 s |" in rows and "| low-bit | 4.00 s, 1.50x [1.40, 1.60] |" in rows
    assert "- A copy moves 4.00 TB/s; quantize_act reaches 80 to 80 % of it." in rows
    assert '- It runs in 6.9 GB with `memory="4bit"`.' in rows


RED = MEASURED["parts"] | {"conformance": GREEN | {"status": "failed"}}


@pytest.mark.parametrize("change", [{"dry_run": True}, {"parts": RED}])
def test_the_readme_shows_nothing_of_a_dry_run_or_a_red_one(change):
    assert script("readme_table").gpu_section(MEASURED | change) == []


def test_help_has_every_part_and_examples(capsys):
    with pytest.raises(SystemExit) as stopped:
        gpu.main(["--help"])
    printed = capsys.readouterr().out
    assert stopped.value.code == 0 and "--dry-run" in printed and all(f"  {name} " in printed for name in gpu.PARTS)


def test_the_command_runs_from_anywhere(tmp_path):
    command = [sys.executable, "-P", str(BENCH / "gpu.py"), "--help"]
    assert b"python bench/gpu.py" in subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout


def test_the_table_of_a_run_has_medians_ratios_and_facts(capsys):
    timed = {"median us": {"cuda": 6.4}, "TFLOP/s": {"cuda": 1200.0}, "speed-up": {"cuda": SPEED}}
    flux = {"memory": {"peak bytes": 6_900}, "split": {"ms": {"attention": 1.5}}}
    parts = {"ops": {"cases": {"linear x": timed}}, "flux12b": {"cases": flux}}
    show(parts, ["ops", "flux12b", "tune"], Console(width=120))
    lines = [line for line in capsys.readouterr().out.splitlines() if "│" in line]
    printed = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
    assert printed == [
        ["ops: linear x", "cuda", "6.4 us", "1200.00 TFLOP/s", "1.50 [1.40, 1.60]", ""],
        ["flux12b: memory", "peak bytes", "6,900", "", "", ""],
        ["flux12b: split", "attention", "1.50 ms", "", "", ""],
    ]
