"""Wall time of callables measured in turn, and a warning when the machine is too busy for the times to mean anything."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

STAT = Path("/proc/stat")


def interleave(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int = 10,
    warmup: int = 2,
    device: torch.device | str = "cpu",
) -> dict[str, list[float]]:
    """Time every candidate once per round, in one process, and return all samples in seconds: name -> [rounds].

    The order turns around every round (A B B A ...), so that a drift of clock or temperature falls on all alike; sample i of one
    candidate pairs with sample i of another. Each is called `warmup` times first. On CUDA every sample ends synchronised.
    """
    if rounds < 1 or warmup < 0:
        raise ValueError(f"rounds, warmup: at least 1 and 0 are needed, got {rounds} and {warmup}")
    device = torch.device(device)
    for _ in range(warmup):
        for call in candidates.values():
            call()
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates)
    for _ in range(rounds):
        for name in order:
            samples[name].append(_time_once(candidates[name], device))
        order.reverse()
    return samples


def _time_once(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def load_guard(limit: float = 0.15, seconds: float = 0.3) -> str | None:
    """One sentence when other processes use more than `limit` of all cores, None on a quiet machine.

    Watches the machine for `seconds`; where /proc/stat is missing it goes by the load average of the last minute, which includes
    this process's own past work.
    """
    cores = os.cpu_count() or 1
    if STAT.exists():
        busy, own, start = _busy_seconds(), time.process_time(), time.perf_counter()
        time.sleep(seconds)
        elapsed = time.perf_counter() - start
        others = (_busy_seconds() - busy - (time.process_time() - own)) / elapsed
    elif hasattr(os, "getloadavg"):
        others = os.getloadavg()[0]
    else:
        return None
    if others <= limit * cores:
        return None
    return f"other processes keep {others:.1f} of {cores} cores busy: times measured now are not to be trusted"


def _busy_seconds() -> float:
    """CPU seconds, over all cores since boot, that were neither idle nor waiting for a disk."""
    user, nice, system, _, _, irq, softirq, steal = (int(x) for x in STAT.read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
