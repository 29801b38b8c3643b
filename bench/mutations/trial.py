"""One module, with or without a mutant, through all calls: in a process of its own, so that it may hang or crash."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import signal
import time
from collections.abc import Callable
from ctypes import CDLL, c_int
from dataclasses import dataclass
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from halfbyte.ops.native.register import KERNELS
from halfbyte.testing.kernel_calls import KERNEL_CALLS, KernelCall
from halfbyte.testing.limits import poisoned_empty

# (seed, run_to_barrier), all with the race detector: the second finds refills that come too early.
SCHEDULES = ((0, False), (1, True), (2, False))
SECONDS = 60


@dataclass(frozen=True)
class Verdict:
    """by: "" where nothing was found, else fault, wrong, schedule, refused, crash or hang. what: the call and one sentence."""

    by: str
    what: str = ""
    bits: str = ""  # of all outputs


@dataclass(frozen=True)
class Prepared:
    call: KernelCall
    args: tuple
    wanted: Any


def into_poison(tensor: torch.Tensor) -> torch.Tensor:
    with poisoned_empty():
        buffer = torch.empty(tensor.numel() + 2048, dtype=tensor.dtype)
    return buffer[1024 : 1024 + tensor.numel()].view(tensor.shape).copy_(tensor)


def prepare(stem: str) -> list[Prepared]:
    calls = KERNEL_CALLS[stem]() if stem in KERNEL_CALLS else ()
    return [Prepared(call, tree_map_only(torch.Tensor, into_poison, call.args), call.wanted()) for call in calls]


def load(path: Path, number: int) -> ModuleType:
    spec = importlib.util.spec_from_loader("_simt", ExtensionFileLoader("_simt", str(path)))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    c_int.in_dll(CDLL(str(path)), "halfbyte_mutant").value = number
    return module


def as_bytes(outputs: Any) -> bytes:
    tensors = outputs if isinstance(outputs, tuple) else (outputs,)
    return b"".join(t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for t in tensors)


def judge(kernels: ModuleType, prepared: list[Prepared]) -> Verdict:
    from hashlib import sha256

    first: dict[int, bytes] = {}
    for seed, run_to_barrier in SCHEDULES:
        kernels.configure(seed=seed, run_to_barrier=run_to_barrier, races=True)
        for index, one in enumerate(prepared):
            place = f"{one.call.op} {one.call.id}"
            try:
                with poisoned_empty():
                    got = KERNELS[one.call.op].run(kernels, *one.args)
            except kernels.Fault as fault:
                return Verdict("fault", f"{place}: {fault}")
            except (ValueError, RuntimeError) as error:
                return Verdict("refused", f"{place}: {error}")
            if reason := one.call.reason_against(got, one.wanted):
                return Verdict("wrong", f"{place}: {reason}")
            if first.setdefault(index, as_bytes(got)) != as_bytes(got):
                return Verdict("schedule", f"{place}: other bits under seed {seed}")
    return Verdict("", bits=sha256(b"".join(first[index] for index in sorted(first))).hexdigest())


def isolated(run: Callable[[], Verdict], seconds: float = SECONDS) -> Verdict:
    """What `run` returns in a fork of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            os.write(writing, json.dumps(vars(run())).encode())
        finally:
            os._exit(0)
    os.close(writing)
    text, end = b"", time.monotonic() + seconds
    while select.select([reading], [], [], max(0, end - time.monotonic()))[0]:
        if not (part := os.read(reading, 65536)):
            break
        text += part
    else:
        os.kill(child, signal.SIGKILL)
    os.close(reading)
    status = os.waitpid(child, 0)[1]
    if text:
        return Verdict(**json.loads(text))
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return Verdict("hang", f"not done after {seconds} seconds")
    return Verdict("crash", f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "an exception that is no fault")


def try_module(path: Path, number: int, prepared: list[Prepared]) -> Verdict:
    return isolated(lambda: judge(load(path, number), prepared))
