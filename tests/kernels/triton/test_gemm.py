"""The Triton products where the conformance suite does not reach: ranks, ragged edges, segments, float16, descriptors, tiles."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.utils._pytree import tree_map_only

from halfbyte.ops import OPS, NoBackendError, use_backend
from halfbyte.ops.triton import gemm as rejections
from halfbyte.testing import Shape, assert_close, poisoned_empty
from halfbyte.testing.limits import format_name
from halfbyte.testing.products import operands

pytest.importorskip("triton", reason="Triton is not installed")

from halfbyte.triton_kernels import gemm_nvfp4, gemm_w4a4, gemm_w8a8
from halfbyte.triton_kernels.tuning import trying

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CAPABILITIES = ((8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))
MODULES = {"gemm_w8a8": gemm_w8a8, "gemm_w4a4": gemm_w4a4, "gemm_nvfp4": gemm_nvfp4}
FORMATS = {"int8": "gemm_w8a8", "fp8": "gemm_w8a8", "int4": "gemm_w4a4", "nvfp4": "gemm_nvfp4"}
NO_TRITON = OPS["gemm_w8a8"].missing("triton")
pytestmark = pytest.mark.skipif(NO_TRITON is not None, reason=str(NO_TRITON))


def on_device(args):
    return tree_map_only(torch.Tensor, lambda tensor: tensor.to(DEVICE), args)


def run(name, args):
    """The op's outputs in Triton, unwritten elements NaN, the same bits twice."""
    with use_backend("triton"):
        with poisoned_empty():
            got = OPS[name](*args)
        assert torch.equal(got.nan_to_num(7), OPS[name](*args).nan_to_num(7))
    return got


def check(name, args):
    args = on_device(args)
    got, want = run(name, args), OPS[name].reference(*args)
    assert got.dtype == want.dtype
    assert_close(name, got, want, format_name(want.dtype))
    return got


def unsigned(args):
    """The operands of gemm_w4a4 with their codes read as 0..15."""
    *most, _, out_dtype = args
    return (*most, True, out_dtype)


def with_capability(monkeypatch, capability):
    monkeypatch.setattr(gemm_w8a8, "capability_of", lambda device: capability)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("m", "n", "k", "rank", "dtype"),
    [
        (1, 8, 64, 128, torch.float16),
        (77, 320, 320, 16, torch.bfloat16),
        (129, 8, 448, 0, torch.float16),
        (77, 104, 64, 40, torch.float32),
    ],
)
def test_odd_sizes_and_ranks(format, m, n, k, rank, dtype):
    args = operands(FORMATS[format], Shape("odd", m, n, k), dtype, rank, bias=rank != 16, format=format)
    check(FORMATS[format], args)


@pytest.mark.parametrize(("k", "segments"), [(320, 5), (192, 4), (512, 2)], ids=["narrow", "ragged", "wide"])
@pytest.mark.parametrize("format", ["int8", "fp8"])
def test_segments(format, k, segments):
    check("gemm_w8a8", operands("gemm_w8a8", Shape("segments", 20, 40, k), torch.bfloat16, 16, segments=segments, format=format))


def test_unsigned_codes_with_a_gate_for_each_image_and_a_residual_of_another_dtype():
    args = unsigned(operands("gemm_w4a4", Shape("unsigned", 18, 72, 128), torch.bfloat16))
    check("gemm_w4a4_gate_residual", (*args, torch.randn(3, 72).half(), torch.randn(18, 72)))


@pytest.mark.parametrize("format", FORMATS)
def test_operands_need_not_be_contiguous(format):
    name = FORMATS[format]
    args = operands(name, Shape("strided", 9, 24, 128), torch.bfloat16, format=format)
    strided = tree_map_only(torch.Tensor, lambda tensor: tensor.t().contiguous().t() if tensor.dim() == 2 else tensor, args)
    assert not strided[0].is_contiguous()
    assert torch.equal(check(name, args), run(name, on_device(strided)))


@pytest.mark.parametrize("glu", ["none", "value_first", "gate_first"])
@pytest.mark.parametrize("format", FORMATS)
def test_small_tiles_in_every_order_give_the_same_bits(format, glu):
    name = FORMATS[format]
    args = (*on_device(operands(name, Shape("tiles", 100, 80, 128), torch.bfloat16, format=format)), "silu", glu)
    want = check(f"{name}_act", args)
    default = getattr(MODULES[name], f"{name}_default")(100, 80, 128, (8, 0))
    for group in (1, 2, 8):
        small = replace(default, BLOCK_M=64, BLOCK_N=32, BLOCK_K=64, GROUP_M=group)
        with trying(name, small):
            assert torch.equal(run(f"{name}_act", args), want)


def test_a_program_that_computes_many_tiles_gives_the_same_bits(monkeypatch):
    args = on_device(operands("gemm_w8a8", Shape("persistent", 100, 80, 128), torch.bfloat16))
    want = check("gemm_w8a8", args)
    monkeypatch.setattr(gemm_w8a8, "programs_of", lambda *args: 2)
    with trying("gemm_w8a8", gemm_w8a8.W8A8Config(64, 32, 64, 8, 4, 2, PERSISTENT=True)):
        assert torch.equal(run("gemm_w8a8", args), want)


@pytest.mark.parametrize("glu", ["none", "gate_first"])
@pytest.mark.parametrize(("k", "segments"), [(128, 1), (112, 1), (512, 2), (320, 5)])
@pytest.mark.parametrize("format", ["int8", "fp8"])
def test_descriptors_read_what_pointers_read(format, k, segments, glu, monkeypatch):
    shape = Shape("descriptors", 70, 72, k)
    args = on_device(operands("gemm_w8a8", shape, torch.bfloat16, 16, segments=segments, format=format))
    made = []
    monkeypatch.setattr(gemm_w8a8, "descriptors", lambda *args, make=gemm_w8a8.descriptors: made.append(0) or make(*args))
    want = run("gemm_w8a8_act", (*args, "gelu_tanh", glu))
    before = len(made)
    with_capability(monkeypatch, (9, 0))
    assert torch.equal(run("gemm_w8a8_act", (*args, "gelu_tanh", glu)), want)
    # 256 columns are a step in the interpreter: segments of 64 cannot be described.
    assert DEVICE == "cuda" or (before, len(made)) == (0, 0 if segments == 5 else 2)


def test_an_operand_that_a_descriptor_cannot_begin_at_is_read_by_pointers(monkeypatch):
    with_capability(monkeypatch, (9, 0))
    qx, *rest = on_device(operands("gemm_w8a8", Shape("misaligned", 5, 24, 64), torch.bfloat16))
    buffer = torch.empty(qx.numel() + 1, dtype=qx.dtype, device=qx.device)
    check("gemm_w8a8", (buffer[1:].view(qx.shape).copy_(qx), *rest))


@pytest.mark.parametrize("name", MODULES)
def test_an_empty_product_is_empty(name):
    args = operands(name, Shape("empty", 0, 24, 64), torch.bfloat16)
    with use_backend("triton"):
        assert OPS[name](*on_device(args)).shape == (0, 24)


def test_sums_of_e4m3_are_rescaled_before_they_lose_bits():
    for k, segments, capability in itertools.product((64, 1024, 1152, 3072, 12288, 15360), (1, 2, 5), CAPABILITIES):
        if k % segments:
            continue
        width = gemm_w8a8.columns_per_sum(k, segments, True, capability)
        assert k // segments % width == 0
        assert width == k // segments or width % 128 == 0
        limit = float("inf") if capability[0] == 10 or k // segments % 128 else 1024
        assert width <= limit
        assert gemm_w8a8.columns_per_sum(k, segments, False, capability) == k // segments


@pytest.mark.parametrize("name", MODULES)
def test_defaults_are_of_the_stated_space_and_fit_shared_memory(name, monkeypatch):
    module, bits = MODULES[name], 8 if name == "gemm_w8a8" else 4
    monkeypatch.setattr(module, "INTERPRETED", type(module.INTERPRETED)(False))
    kibibytes = {(8, 0): 163, (8, 6): 99, (8, 9): 99, (9, 0): 227, (10, 0): 227, (12, 0): 99}
    for m, n, capability in itertools.product((1, 64, 154, 4096), (64, 3072, 18432), CAPABILITIES):
        space = getattr(module, f"{name}_configs")(m, n, 3072, capability)
        assert getattr(module, f"{name}_default")(m, n, 3072, capability) in space
        for config in space:
            stage = (config.BLOCK_M + config.BLOCK_N) * config.BLOCK_K * bits // 8
            assert stage * config.num_stages <= kibibytes[capability] * 1024, config


def test_e4m3_is_refused_where_tensor_cores_lack_it(monkeypatch):
    codes = torch.empty(1, 16, dtype=torch.float8_e4m3fn)
    monkeypatch.setattr(rejections, "is_interpreted", lambda: False)
    for capability, refused in (((8, 0), True), ((8, 6), True), ((8, 9), False), ((9, 0), False)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, capability=capability: capability)
        reason = rejections.fp8_rejects(codes)
        assert (reason is not None) == refused
        assert not refused or reason == f"E4M3 codes need the tensor cores of sm_89 or later, not sm_8{capability[1]}"
        assert rejections.fp8_rejects(codes.view(torch.int8)) is None


@pytest.mark.parametrize("name", MODULES)
def test_a_branch_of_two_dtypes_is_refused(name):
    args = list(on_device(operands(name, Shape("branch", 4, 8, 64), torch.bfloat16)))
    at = 5 if name == "gemm_nvfp4" else 4
    args[at] = args[at].half()
    with use_backend("triton"), pytest.raises(NoBackendError, match="low_rank_act and proj_up of one dtype needed"):
        OPS[name](*args)


@pytest.mark.skipif(DEVICE == "cpu", reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("name", MODULES)
def test_a_captured_graph_computes_on_new_inputs(name):
    args = on_device(operands(name, Shape("captured", 256, 512, 512), torch.bfloat16))
    with use_backend("triton"):
        OPS[name](*args)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            got = OPS[name](*args)
        args[1].mul_(2)
        graph.replay()
        assert torch.equal(got, OPS[name](*args))
