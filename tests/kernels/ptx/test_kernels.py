"""Every kernel of csrc/cuda, as nvcc compiles it, against the op's reference, and bit for bit against the SIMT shim."""

import importlib.util
import inspect
import shutil

import pytest
import torch

from halfbyte.ops import OPS, quantize_act, use_backend
from halfbyte.ops.native.architectures import CAPABILITIES, EMULATING, reason_against
from halfbyte.ops.native.gemm_w8a8 import WARPGROUPS_FILE
from halfbyte.ops.native.quantize import CLUSTERS_FILE
from halfbyte.ops.native.register import KERNELS
from halfbyte.testing import Inputs, Shape, assert_close, calls_of, outputs_as_floats, poisoned_empty
from halfbyte.testing.ptx import PtxFault
from halfbyte.testing.ptx.backend import run_on_ptx

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("halfbyte._simt") is None, reason="halfbyte._simt is not built (HALFBYTE_SIMT=1)"
    ),
    pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc"),
]
ARCHS = {"80": (8, 0), "90": (9, 0), "120f": (12, 0)}
FILES = [
    pytest.param(file, arch, id=f"{file}-{arch}")
    for file in CAPABILITIES
    for arch, capability in ARCHS.items()
    # compute_90 lacks what only sm_90a has: see test_sm90.py. What is for clusters alone: see test_sm90_quantize.py.
    if file not in (WARPGROUPS_FILE, CLUSTERS_FILE) and reason_against(file, capability, arch, by_name=True) is None
]
# Neither M nor N fills a tile. Products take other tiles with many rows, and the quantize kernels with thousands.
FEW_ROWS = Shape("few rows", 33, 208, 256)
MANY_ROWS = Shape("many rows", 133, 144, 192)
THOUSANDS = Shape("thousands of rows", 2053, 16, 64)
DTYPES = (torch.float16, torch.bfloat16)


def example_calls(name, dtype):
    """(id, arguments) of an op, so that every entry of its file runs."""
    calls = calls_of(name, FEW_ROWS, dtype)
    if name in ("gemm_w4a4", "gemm_w8a8", "gemm_nvfp4"):
        calls |= {f"{id}, many rows": args for id, args in calls_of(name, MANY_ROWS, dtype).items()}
    if name == "conv2d":
        calls |= calls_of_many_pixels(dtype)
    elif name == "gemm_w4a16":
        calls |= calls_of_a_few_rows(dtype)
    elif name == "gemm_w8a8":
        calls |= segmented_calls(FEW_ROWS, dtype)
    elif name.startswith("gemm_w8a8_"):
        calls |= calls_of_the_other_format(calls, dtype)
    elif name in ("quantize_act", "norm_quantize", "group_norm_silu_quantize"):
        calls |= calls_of_rank_64(name, dtype)
    return calls.items()


def segmented_calls(shape, dtype):
    """gemm_w8a8 with a scale per segment of 64 columns."""
    calls = {}
    for format in ("int8", "fp8"):
        inputs = Inputs(dtype)
        act = quantize_act.reference(inputs.normal(shape.m, shape.k), None, None, format, segments=shape.k // 64)[:2]
        companions = inputs.companions(shape.m, shape.n, 32, True)
        calls[f"{format}-segments"] = (*act, *inputs.weight(shape.n, shape.k, format), *companions, dtype)
    return calls


def calls_of_many_pixels(dtype):
    """conv2d on images of more pixels than its small tiles are for."""
    inputs, size, channels, n = Inputs(dtype), 17, 64, 72
    calls = {}
    for format in ("int4", "int8"):
        weight = (*inputs.weight(n, 9 * channels, format), None)[:3]
        operands = *inputs.act(2 * size * size, channels, format), *weight, *inputs.companions(2 * size * size, n, 32, True)
        calls[f"{format}, many pixels"] = (*operands, format, [2, size, size], [3, 3], [1, 1], [1, 1], [1, 1], dtype)
    return calls


def calls_of_a_few_rows(dtype):
    """gemm_w4a16 by its matrix-vector kernels, with and without smoothing."""
    calls = {}
    for m in (3, 8):
        for id, args in calls_of("gemm_w4a16", Shape("a few rows", m, 208, 256), dtype).items():
            smooth = Inputs(dtype, seed=1).positive(256)
            calls |= {f"{id}, {m} rows": args, f"{id}, {m} smoothed rows": (args[0], smooth, *args[2:])}
    return calls


def calls_of_the_other_format(calls, dtype):
    """The calls of a fused op, INT8 in place of FP8 and FP8 in place of INT8: calls_of has each epilogue after one of them."""
    products = calls_of("gemm_w8a8", FEW_ROWS, dtype)
    other = {torch.int8: products["fp8-low-rank"], torch.float8_e4m3fn: products["int8-low-rank"]}
    return {f"other format, {id}": (*other[args[0].dtype], *args[len(other[args[0].dtype]) :]) for id, args in calls.items()}


def calls_of_rank_64(name, dtype):
    """With thousands of rows, and too many ranks for rows to be held in shared memory."""
    calls = {}
    for id, args in calls_of(name, THOUSANDS, dtype).items():
        position = list(inspect.signature(OPS[name].reference).parameters).index("proj_down")
        if isinstance(args[position], torch.Tensor):
            proj_down = Inputs(dtype).normal(args[position].shape[0], 64, scale=0.1)
            calls[f"{id}, rank 64"] = (*args[:position], proj_down, *args[position + 1 :])
    return calls


def codes_of(args):
    return next(arg for arg in args if isinstance(arg, torch.Tensor)).dtype


def runs_on(arch, file, name, args):
    if OPS[name].rejects["simt"](*args) or KERNELS[name].file_of(*args) != file:
        return False
    return reason_against(file, ARCHS[arch], arch, codes_of(args), by_name=True) is None


def emulated(arch, name, args):
    """Whether the matrix instruction is several here, each of which rounds."""
    return ARCHS[arch] == EMULATING and (name.startswith("gemm_nvfp4") or codes_of(args) == torch.float8_e4m3fn)


def as_bytes(outputs):
    tensors = outputs if isinstance(outputs, tuple) else (outputs,)
    return [tensor.reshape(-1).view(torch.uint8) for tensor in tensors]


@pytest.mark.parametrize(("file", "arch"), FILES)
def test_a_file(file, arch):
    names = [name for name, kernel in KERNELS.items() if callable(kernel.file) or kernel.file == file]
    every = [
        (name, f"{name}, {id}, {dtype}", args) for name in names for dtype in DTYPES for id, args in example_calls(name, dtype)
    ]
    calls = [call for call in every if runs_on(arch, file, call[0], call[2])]
    with run_on_ptx(arch) as kernels, poisoned_empty():
        results = [kernels.ops[name](*args) for name, _, args in calls]
    for (name, id, args), result in zip(calls, results, strict=True):
        with use_backend("simt"):
            on_the_shim = OPS[name](*args)
        assert emulated(arch, name, args) or all(map(torch.equal, as_bytes(result), as_bytes(on_the_shim))), id
        want = outputs_as_floats(name, args, OPS[name].reference(*args))
        for output, (tensor, format) in outputs_as_floats(name, args, result).items():
            assert_close(f"{id}, {output}", tensor, want[output][0], format)
    assert file in kernels.launched
    left_out = {entry for launched in kernels.launched for entry in kernels.entries_of(launched) - kernels.launched[launched]}
    assert not {entry for entry in left_out if not (arch == "80" and "E4m3" in entry)}, "no call above runs these kernels"


def test_8_bit_floats_trap_before_sm_89():
    args = calls_of("gemm_w8a8", FEW_ROWS, torch.float16)["fp8-plain"]
    with (
        run_on_ptx("80") as kernels,
        pytest.raises(PtxFault, match=r"gemm_w8a8 \(sm80_gemm_w8a8.cu, compute_80\), PTX line .*: trap$"),
    ):
        kernels.ops["gemm_w8a8"](*args)
