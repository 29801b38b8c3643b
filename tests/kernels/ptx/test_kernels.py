"""Every kernel of csrc/cuda, as nvcc compiles it, against the op's reference, and bit for bit against the SIMT shim."""

import importlib.util
import shutil

import pytest
import torch

from halfbyte.ops import OPS, quantize_act, use_backend
from halfbyte.ops.native.architectures import CAPABILITIES, FIRST_FP8
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
    for file in dict.fromkeys(kernel.file for kernel in KERNELS.values())
    for arch, capability in ARCHS.items()
    if CAPABILITIES[file][0] <= capability <= CAPABILITIES[file][1]
]
# Few rows and many take different tiles; neither M nor N fills one.
SHAPES = (Shape("few rows", 33, 208, 256), Shape("many rows", 133, 144, 192))
DTYPES = (torch.float16, torch.bfloat16)


def example_calls(name, arch):
    """(id, arguments) of an op: every variant at both shapes, fused ops at one, as they run the same kernels."""
    fused = name not in ("gemm_w4a4", "gemm_w8a8")
    for shape in SHAPES[:1] if fused else SHAPES:
        for dtype in DTYPES:
            calls = calls_of(name, shape, dtype)
            if name == "gemm_w8a8":
                calls |= segmented_calls(shape, dtype)
            for id, args in calls.items():
                has_fp8 = any(isinstance(arg, torch.Tensor) and arg.dtype == torch.float8_e4m3fn for arg in args)
                if OPS[name].rejects["simt"](*args) is None and not (has_fp8 and ARCHS[arch] < FIRST_FP8):
                    yield f"{name}, {id}, {shape.name}, {dtype}", args


def segmented_calls(shape, dtype):
    """gemm_w8a8 with a scale per segment of 64 columns."""
    calls = {}
    for format in ("int8", "fp8"):
        inputs = Inputs(dtype)
        act = quantize_act.reference(inputs.normal(shape.m, shape.k), None, None, format, segments=shape.k // 64)[:2]
        companions = inputs.companions(shape.m, shape.n, 32, True)
        calls[f"{format}-segments"] = (*act, *inputs.weight(shape.n, shape.k, format), *companions, dtype)
    return calls


@pytest.mark.parametrize(("file", "arch"), FILES)
def test_a_file(file, arch):
    names = [name for name, kernel in KERNELS.items() if kernel.file == file]
    calls = [(name, id, args) for name in names for id, args in example_calls(name, arch)]
    with run_on_ptx(arch) as kernels, poisoned_empty():
        results = [kernels.ops[name](*args) for name, _, args in calls]
    for (name, id, args), result in zip(calls, results, strict=True):
        with use_backend("simt"):
            on_the_shim = OPS[name](*args)
        assert torch.equal(result, on_the_shim), id
        want = outputs_as_floats(name, args, OPS[name].reference(*args))
        for output, (tensor, format) in outputs_as_floats(name, args, result).items():
            assert_close(f"{id}, {output}", tensor, want[output][0], format)
    left_out = {entry for entry in kernels.entries_of(file) - kernels.launched if not (arch == "80" and "E4m3" in entry)}
    assert not left_out, "no call above runs these kernels"


def test_8_bit_floats_trap_before_sm_89():
    args = calls_of("gemm_w8a8", SHAPES[0], torch.float16)["fp8-plain"]
    with (
        run_on_ptx("80") as kernels,
        pytest.raises(PtxFault, match=r"gemm_w8a8 \(sm80_gemm_w8a8.cu, compute_80\), PTX line .*: trap$"),
    ):
        kernels.ops["gemm_w8a8"](*args)
