"""Launch configurations, looked up without searching."""

from __future__ import annotations

import importlib
import torch


def dtype_key(dtype, format):
    return f"{str(dtype).removeprefix('torch.')}-{format}"


def capability_of(device):
    import triton
    if triton.knobs.runtime.interpret: return (8, 0)
    return divmod(triton.runtime.driver.active.get_current_target().arch, 10)


def config_for(op, device, dtype, m, n, k):
    module = importlib.import_module(f".{op}", __package__)
    capability = capability_of(device)
    return getattr(module, f"{op}_default")(m, n, k, capability)
