"""Launch configurations, looked up without searching."""

from __future__ import annotations

import importlib
import torch


def dtype_key(dtype, format):
    return f"{str(dtype).removeprefix('torch.')}-{format}"


def config_for(op, device, dtype, m, n, k):
    module = importlib.import_module(f".{op}", __package__)
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (8, 0)
    return getattr(module, f"{op}_default")(m, n, k, capability)
