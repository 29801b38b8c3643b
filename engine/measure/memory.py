"""Peak memory of a stretch of code, and the bytes a module holds."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from types import TracebackType

import torch
from torch import nn

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """`with PeakMemory(device) as peak: ...` then `peak.bytes`: the highest use inside the block.

    CUDA: bytes allocated by PyTorch (neither the context nor cuBLAS workspaces). CPU: resident bytes of the whole process; where
    the high-water mark cannot be reset it is that of the process so far, and `peak.exact` is False.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.bytes = 0
        self.exact = True

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self.exact = _reset_high_water()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.bytes = torch.cuda.max_memory_allocated(self.device)
        else:
            self.bytes = _high_water()


def _reset_high_water() -> bool:
    try:
        CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def _high_water() -> int:
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def module_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers, shared ones once.

    A parameter with a `storage` dict of tensors (a low-bit weight) counts as those tensors, so that a factor shared by several
    layers counts once; what `prepare` made for this device is not counted.
    """
    seen: dict[tuple[object, ...], int] = {}
    for tensor in [*module.parameters(), *module.buffers()]:
        parts = getattr(tensor, "storage", None)
        for part in parts.values() if isinstance(parts, dict) else [tensor]:
            # Tensors on meta have no address: there only being the same object can show that two are one.
            address = part.data_ptr() if part.device.type != "meta" else 0
            seen[(part.device, address) if address else (id(part),)] = part.numel() * part.element_size()
    return sum(seen.values())
