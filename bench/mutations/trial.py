"""One module, with or without a mutant, through all calls: in a process of its own, so that it may hang or crash."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from types import ModuleType

from halfbyte.testing.kernel_calls import KERNEL_CALLS, Call, bits_of, reason_against_work

# (seed, run_to_barrier), all with the race detector: the second finds refills that come too early.
SCHEDULES = ((0, False), (1, True), (2, False))
CPU_SECONDS = 30  # of a process; the kernels as they are take up to 8


@dataclass(frozen=True)
class Verdict:
    """by: "" where nothing was found, else fault, wrong, schedule, refused, crash or hang. what: the call and one sentence."""

    by: str
    what: str = ""
    bits: str = ""  # a word for each call's outputs


@cache
def calls_of(stem: str) -> list[Call]:
    """The calls of a kernel file, with their references computed."""
    calls = list(KERNEL_CALLS[stem]()) if stem in KERNEL_CALLS else []
    for call in calls:
        getattr(call, "wanted", None), getattr(call, "poisoned_args", None)
    return calls


def load(path: Path, number: int) -> ModuleType:
    os.environ["HALFBYTE_MUTANT"] = str(number)
    spec = importlib.util.spec_from_loader("_simt", ExtensionFileLoader("_simt", str(path)))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def judge(kernels: ModuleType, calls: list[Call]) -> Verdict:
    """The first thing that is wrong, or else a digest of each call's outputs."""
    first: dict[str, bytes] = {}
    for seed, run_to_barrier in SCHEDULES:
        kernels.configure(seed=seed, run_to_barrier=run_to_barrier, races=True)
        for call in calls:
            try:
                kernels.take_work()
                got = call.run(kernels)
            except kernels.Fault as fault:
                return Verdict("fault", f"{call.id}: {fault}")
            except (ValueError, RuntimeError) as error:
                return Verdict("refused", f"{call.id}: {error}")
            if reason := call.reason_against(got) or reason_against_work(call, kernels.take_work()):
                return Verdict("wrong", f"{call.id}: {reason}")
            if first.setdefault(call.id, bits_of(got)) != bits_of(got):
                return Verdict("schedule", f"{call.id}: other bits under seed {seed}")
    return Verdict("", bits=" ".join(sha256(id.encode() + bits).hexdigest()[:10] for id, bits in first.items()))


def isolated(run: Callable[[], Verdict]) -> Verdict:
    """What `run` returns in a fork of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
            os.close(reading)
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            os.write(writing, json.dumps(vars(run())).encode())
        except Exception as error:
            os.write(writing, json.dumps(vars(Verdict("crash", repr(error)))).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        text = pipe.read()
    status = os.waitpid(child, 0)[1]
    if text:
        return Verdict(**json.loads(text))
    if not os.WIFSIGNALED(status):
        return Verdict("crash", "no verdict")
    number = os.WTERMSIG(status)
    if number in (signal.SIGXCPU, signal.SIGKILL):
        return Verdict("hang", f"not done after {CPU_SECONDS} seconds")
    return Verdict("crash", signal.Signals(number).name)


def try_module(path: Path, number: int, calls: list[Call]) -> Verdict:
    return isolated(lambda: judge(load(path, number), calls))
