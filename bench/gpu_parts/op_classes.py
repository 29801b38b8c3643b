"""Device time by class of op: the profiler's kernels, sorted by what their names say."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

# First match wins.
CLASSES = (
    ("attention", r"flash|fmha|attention|sdpa|softmax"),
    ("quantize", r"quantize|sum_partials"),
    ("q/k norm and RoPE", r"qk_norm|rope"),
    ("matrix products", r"gemm|gemv|matmul|nvjet|cutlass|xmma|splitk|wgmma|addmm|linear|::mm\b|convolution"),
    ("cache", r"forecast|rel_l1|delta_apply|affine_correct"),
    ("copies", r"memcpy|memset|copy|cat"),
    ("elementwise and norms", r""),
)


def class_of(kernel: str) -> str:
    return next(name for name, pattern in CLASSES if re.search(pattern, kernel, re.IGNORECASE))


def split(call: Callable[[], object], device: str) -> dict[str, Any]:
    """Milliseconds per class of one call, and the ten longest kernels. On a CPU the ops' own time stands for that of kernels."""
    on_gpu = device == "cuda"
    call()
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiled:
        call()
        if on_gpu:
            torch.cuda.synchronize()
    totals: dict[str, float] = defaultdict(float)
    kernels: dict[str, float] = {}
    for event in profiled.key_averages():
        spent = (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e3
        if spent:
            totals[class_of(event.key)] += spent
            kernels[event.key[:120]] = kernels.get(event.key[:120], 0) + spent
    longest = sorted(kernels, key=kernels.__getitem__, reverse=True)[:10]
    classes = {name: round(totals[name], 3) for name in sorted(totals, key=totals.__getitem__, reverse=True)}
    return {"ms": classes, "longest, ms": {name: round(kernels[name], 3) for name in longest}}
