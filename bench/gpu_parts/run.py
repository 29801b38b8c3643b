"""The parts in order, each in a process of its own, and what is said about them."""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .context import Context, missing_packages, told
from .machine import machine
from .record import NO_FIGURES, ROOT, Record, slug, source_digest
from .show import show

# Part -> whether it reports speeds, which a conformance run that is not green forbids.
PARTS = {
    "build": False,
    "conformance": False,
    "sanitizer": False,
    "simt": False,
    "ceilings": True,
    "ops": True,
    "block": True,
    "flux12b": True,
    "tune": True,
}
DRY_NAME = "dry_run"
LONGEST_START = 20  # seconds that a process may take beyond its part's budget


def record_of(out: Path, dry: bool) -> Record:
    """The record in `out` of this GPU. Raises SystemExit without a GPU, or when the folder holds another machine's."""
    found = machine()
    gpu = found["gpu"].get("name")
    if not dry and not gpu:
        raise SystemExit("no GPU: nvidia-smi finds none here; --dry-run runs every part on the CPU")
    record = Record(out / f"{DRY_NAME if dry else slug(gpu)}.json")
    held = record.data.get("gpu")
    if not dry and held not in (None, gpu):
        raise SystemExit(f"--out: a folder of {gpu} needed, got one that holds results of {held}")
    note = NO_FIGURES if dry else "every ratio is of calls interleaved in one process; intervals are 95 %, paired by round"
    record.data |= {"kind": "gpu", "gpu": None if dry else gpu, "dry_run": dry, "note": note, "machine": found}
    return record


def run_all(
    parts: Sequence[str], out: Path, dry: bool, again: bool, seconds: float, part_seconds: float, although_red: bool = False
) -> int:
    """Returns 0 when every part is done, 1 otherwise."""
    console = Console(highlight=False, soft_wrap=True)
    record, source, end = record_of(out, dry), source_digest(), time.monotonic() + seconds
    console.print(NO_FIGURES if dry else f"{record.data['gpu']}, source {source}")
    for name in parts if again else [name for name in parts if name == "build" and not is_installed(dry)]:
        record.forget(name)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record.data.setdefault("runs", []).append({"started": started, "parts": list(parts)})
    record.save()
    statuses = []
    for name in parts:
        if record.is_done(name, source):
            console.print(f"{name}: done before")
            statuses.append("done")
            continue
        budget = min(part_seconds, end - time.monotonic())
        if budget < LONGEST_START:
            console.print(f"{name}: not begun, the time is used up")
            statuses.append("not begun")
            continue
        record.try_again(name)
        record.save()
        if dry:
            run_one(name, out, dry, budget, although_red)
        else:
            in_own_processes(name, out, record.path, min(end, time.monotonic() + budget), although_red)
        record = Record(record.path)
        statuses.append(conclude(record, name, console))
    if not dry:
        show(record.data["parts"], parts, console)
    console.print(f"written to {record.path}" + (f"; {NO_FIGURES}" if dry else ""))
    return int(set(statuses) != {"done"})


def is_installed(dry: bool) -> bool:
    """A record may come from another machine of the same GPU, or from before a clean-up."""
    return not missing_packages(["halfbyte"]) and (dry or any((ROOT / "engine").glob("_cuda*.so")))


def in_own_processes(name: str, out: Path, record: Path, end: float, although_red: bool = False) -> None:
    """As many, one after the other, as it takes to leave out what faults or does not end; end: of time.monotonic."""
    while (left := end - time.monotonic()) > 0:
        ending = in_own_process(name, out, left, although_red)
        kept = Record(record)
        goes_on = kept.blame(name, ending)
        kept.save()
        if not goes_on:
            return


def in_own_process(name: str, out: Path, budget: float, although_red: bool = False) -> str:
    """A fault of one part leaves the others a working GPU; one that does not end in time is ended. Says how it ended."""
    command = [sys.executable, str(ROOT / "bench/gpu.py"), "--out", str(out), "--only", name, "--part-minutes", str(budget / 60)]
    command += ["--although-red"] if although_red else []
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    # A group of its own, so that what it started ends with it.
    child = subprocess.Popen(command, env=environment, process_group=0)
    try:
        child.wait(timeout=budget + LONGEST_START)
    except subprocess.TimeoutExpired:
        pass
    finally:
        # What it started may hang on the GPU after it has ended itself.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        code = child.wait()
    return f"its process was ended by {signal.Signals(-code).name}" if code < 0 else "it did not end, or ended its process"


def conclude(record: Record, name: str, console: Console) -> str:
    """Say how a part ended. One that is still "running" was ended from outside: its cases are kept."""
    part = record.part(name)
    if part["status"] in ("running", "missing"):
        sentences = ["its process ended before it did; what it had measured is kept", *told(part)]
        part |= {"status": "partial", "reason": "; ".join(sentences)}
        record.save()
    console.print(f"{name}: {part['status']}, {part.get('seconds', 0)} s" + (f" ({part['reason']})" if "reason" in part else ""))
    for sentence in part.get("absent", []):
        console.print(f"  {sentence}")
    return part["status"]


def run_one(name: str, out: Path, dry: bool, budget: float, although_red: bool = False) -> int:
    """One part in this process. Returns 0 when it is done."""
    if dry:
        os.environ.setdefault("TRITON_INTERPRET", "1")
        os.environ.setdefault("HALFBYTE_CPU_KIND", "float32")
    record = record_of(out, dry)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=None)

        def report(text: str) -> None:
            progress.update(task, description=f"{name}: {text}")

        context = Context(name, record, source_digest(), out, dry, budget, report, although_red)
        entry = context.run(lambda here: import_module(f".{name}", __package__).run(here), PARTS[name])
    return int(entry["status"] != "done")
