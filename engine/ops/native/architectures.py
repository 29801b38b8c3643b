"""Which GPUs each kernel file runs on; csrc/cuda/architectures.toml is what a build compiles for."""

from __future__ import annotations

from types import ModuleType

import torch

# Kernel file -> lowest and highest compute capability it is made for.
CAPABILITIES = {
    "sm80_gemm_w4a4": ((8, 0), (9, 0)),
    "sm80_gemm_w8a8": ((8, 0), (12, 1)),
    "smxx_quantize_act": ((8, 0), (12, 1)),
    "smxx_norm_quantize": ((8, 0), (12, 1)),
    "smxx_group_norm_quantize": ((8, 0), (12, 1)),
    "sm80_conv2d_w4a4": ((8, 0), (9, 0)),
    "sm80_conv2d_w8a8": ((8, 0), (12, 1)),
}
FIRST_FP8 = (8, 9)


def reason_against(kernel: str, capability: tuple[int, int], built: str) -> str | None:
    """One sentence why the kernel cannot run on a GPU of this capability with what was built ("86;90a"), or None."""
    lowest, highest = CAPABILITIES[kernel]
    name = f"sm_{capability[0]}{capability[1]}"
    if not lowest <= capability <= highest:
        return f"{kernel} is made for sm_{lowest[0]}{lowest[1]} to sm_{highest[0]}{highest[1]}, not {name}"
    numbers = [int(arch.rstrip("af")) for arch in built.split(";") if arch]
    if not any(number // 10 == capability[0] and number % 10 <= capability[1] for number in numbers):
        return f"the CUDA kernels were built for {built or 'no architecture'}, not {name}; reinstall on this machine"
    return None


def here(kernels: ModuleType, kernel: str, device: torch.device) -> str | None:
    if device.type != "cuda":
        return None
    return reason_against(kernel, torch.cuda.get_device_capability(device), kernels.architectures)
