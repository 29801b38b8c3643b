"""Which GPUs each kernel file runs on; csrc/cuda/architectures.toml is what a build compiles for."""

from __future__ import annotations

import torch

from ...env import cuda_architectures

Range = tuple[tuple[int, int], tuple[int, int]]

# Kernel file -> lowest and highest compute capability it is made for.
CAPABILITIES: dict[str, Range] = {
    "sm80_gemm_w4a4": ((8, 0), (8, 9)),
    "sm80_gemm_w8a8": ((8, 0), (12, 1)),
    "sm90_gemm_w8a8": ((9, 0), (9, 0)),
    "sm90_quantize_act": ((9, 0), (9, 0)),
    "sm120_gemm_nvfp4": ((12, 0), (12, 1)),
    "smxx_quantize_act": ((8, 0), (12, 1)),
    "smxx_norm_quantize": ((8, 0), (12, 1)),
    "smxx_group_norm_quantize": ((8, 0), (12, 1)),
    "smxx_gemm_w4a16": ((8, 0), (12, 1)),
    "smxx_qk_norm_rope": ((8, 0), (12, 1)),
    "smxx_cache": ((8, 0), (12, 1)),
    "sm80_conv2d_w4a4": ((8, 0), (8, 9)),
    "sm80_conv2d_w8a8": ((8, 0), (12, 1)),
}
# Where a kernel's E4M3 codes need more than its capabilities: the GPUs that have the instruction it multiplies them by.
FP8: dict[str, tuple[Range, ...]] = {"sm80_gemm_w8a8": (((8, 9), (8, 9)), ((12, 0), (12, 1)))}
# This one emulates E4M3, E2M1 and INT4 products: slow, and good for checking the kernels, so it does only where the backend was
# asked for by name.
EMULATING, EMULATED = (9, 0), ("sm120_gemm_nvfp4", "sm80_gemm_w4a4", "sm80_conv2d_w4a4")


def reason_against(
    kernel: str, capability: tuple[int, int], built: str, codes: torch.dtype | None = None, by_name: bool = False
) -> str | None:
    """One sentence why the kernel cannot run on a GPU of this capability with what was built ("86;90a"), or None.

    codes: dtype of the quantized operand, if there is one; by_name: the backend was asked for, not chosen.
    """
    fp8, name = codes == torch.float8_e4m3fn and kernel in FP8, spoken(capability)
    ranges, what = (FP8[kernel], f"{kernel} with E4M3 codes") if fp8 else ((CAPABILITIES[kernel],), kernel)
    if not any(lowest <= capability <= highest for lowest, highest in ranges):
        emulated = capability == EMULATING and (fp8 or kernel in EMULATED)
        if not emulated:
            return f"{what} is made for {listed(ranges)}, not {name}"
        if not by_name:
            return f"{what} is made for {listed(ranges)}; {name} emulates it when the backend is asked for by name"
    numbers = [int(arch.rstrip("af")) for arch in built.split(";") if arch]
    if not any(number // 10 == capability[0] and number % 10 <= capability[1] for number in numbers):
        return f"the CUDA kernels were built for {built or 'no architecture'}, not {name}; reinstall on this machine"
    return None


def spoken(capability: tuple[int, int]) -> str:
    return f"sm_{capability[0]}{capability[1]}"


def listed(ranges: tuple[Range, ...]) -> str:
    return " and ".join(" to ".join(dict.fromkeys(map(spoken, ends))) for ends in ranges)


def here(kernel: str, first: torch.Tensor, by_name: bool) -> str | None:
    """first: the op's first tensor, which holds the codes where there are any."""
    if not first.is_cuda:
        return f"tensors on a GPU needed, got them on {first.device}"
    capability = torch.cuda.get_device_capability(first.device)
    return reason_against(kernel, capability, cuda_architectures() or "", first.dtype, by_name)
