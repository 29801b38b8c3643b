"""The cluster kernel of quantize_act as nvcc compiles it: the reference's bits, and those of the kernel that walks rows."""

import importlib.util
import re
import shutil

import pytest
import torch

from halfbyte.ops import OPS, use_backend
from halfbyte.ops.native.quantize import CLUSTERS_FILE, by_clusters
from halfbyte.testing import Inputs, assert_close, format_name, poisoned_empty
from halfbyte.testing.ptx import PtxFault
from halfbyte.testing.ptx.backend import run_on_ptx

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("halfbyte._simt") is None, reason="halfbyte._simt is not built (HALFBYTE_SIMT=1)"
    ),
    pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc"),
]
OP = "quantize_act"
HALF, BFLOAT = torch.float16, torch.bfloat16
FORMATS = ("int8", "fp8")


@pytest.fixture(scope="module")
def kernels():
    with run_on_ptx("90a") as recorded:
        yield recorded


def operands(dtype, m, k, rank, smooth=True):
    inputs = Inputs(dtype, seed=m + k + rank)
    proj_down = inputs.normal(k, rank, scale=k**-0.5) if rank else None
    return inputs.normal(m, k), inputs.positive(k) if smooth else None, proj_down


def check(kernels, *args):
    with poisoned_empty():
        got = by_clusters(kernels, *args)
    qx, ascales, low_rank_act = OPS[OP].reference(*args)
    assert torch.equal(got[1].nan_to_num(-1), ascales.nan_to_num(-1))
    meaningless = ascales[0, : qx.shape[0], None].isnan()
    codes = [tensor.view(torch.uint8).masked_fill(meaningless, 0) for tensor in (got[0], qx)]
    assert torch.equal(*codes)
    assert_close("low_rank_act", got[2], low_rank_act, format_name(low_rank_act.dtype))


# Groups of 16, 32 and 64 rows, blocks without columns, several boxes of a warp, several groups of a cluster, ragged ends of all.
SIZES = [(1, 16, 8, "int8"), (17, 208, 0, "fp8"), (50, 1040, 24, "int8"), (129, 1536, 32, "fp8"), (33, 3072, 40, "int8")]


@pytest.mark.parametrize(("m", "k", "rank", "format"), SIZES)
def test_sizes(kernels, m, k, rank, format):
    dtype = HALF if m in (1, 50) else BFLOAT
    check(kernels, *operands(dtype, m, k, rank, smooth=m != 50), format)


def extremes(dtype):
    """Zeros, infinity, NaN, the largest and smallest numbers, ties, and outliers, each in a row of its own."""
    x = Inputs(dtype, seed=5).normal(13, 336)
    x[0], x[1] = 0, -0.0
    x[2, 7], x[3, 70], x[4, 9] = float("inf"), float("nan"), 6e4
    x[5] = x[5].sign() * torch.finfo(dtype).max
    x[6] = x[6].sign() * torch.finfo(dtype).smallest_normal / 4
    x[7:10] = (torch.arange(-28, 29) / 4).repeat(18)[: 3 * 336].reshape(3, 336).to(dtype)
    x[7:10, ::16] = 7
    x[10], x[11] = 2.0**-70 if dtype == BFLOAT else 2.0**-24, 448
    return x


SMOOTHS = {
    "none": lambda smooth: None,
    "small": lambda smooth: smooth * 2.0**-20,
    "zero": lambda smooth: smooth.index_fill(0, torch.tensor([5]), 0),
}


@pytest.mark.parametrize("dtype", [HALF, BFLOAT], ids=format_name)
@pytest.mark.parametrize("smooth", SMOOTHS)
def test_extreme_values_have_the_bits_of_the_reference(kernels, smooth, dtype):
    divisor = SMOOTHS[smooth](Inputs(dtype).positive(336))
    for format in FORMATS:
        check(kernels, extremes(dtype), divisor, None, format)


def test_scales_whose_reciprocals_do_not_give_the_codes(kernels):
    """Peaks and a smooth factor that bring a scale within 16 of a multiple of 2^17, in rows full of ties."""
    numbers = (torch.arange(1024) + 1024).to(HALF) / 1024
    scales = (numbers.float()[:, None] / numbers.float()) / 127
    distance = scales.view(torch.int32) % 2**17
    distance = torch.minimum(distance, 2**17 - distance)
    peaks, smooths = torch.nonzero((distance > 0) & (distance <= 16), as_tuple=True)
    smooth = smooths.mode().values
    peaks = peaks[smooths == smooth]
    assert len(peaks)
    ties = torch.arange(-127.5, 128).repeat(3)[:752]
    x = (ties * scales[peaks, smooth, None] * numbers[smooth]).to(HALF)
    x[:, 0] = numbers[peaks]
    x = x.clamp(-x[:, :1], x[:, :1])
    check(kernels, x, numbers[smooth].repeat(752), None, "int8")


def test_results_are_those_of_the_rows_kernel(kernels):
    args = *operands(BFLOAT, 70, 784, 64), "int8"
    by_cluster = by_clusters(kernels, *args)
    kernels._simt.set_recorder(None)
    with use_backend("simt"):
        by_row = OPS[OP](*args)
    kernels._simt.set_recorder(kernels.run)
    assert torch.equal(by_cluster[0], by_row[0]) and torch.equal(by_cluster[1], by_row[1])
    assert_close("low_rank_act", by_cluster[2], by_row[2], "bfloat16")


@pytest.mark.parametrize("seed", [1, 2])
def test_warps_and_blocks_may_run_ahead(kernels, seed):
    args = *operands(HALF, 70, 592, 16), "fp8"
    want = by_clusters(kernels, *args)
    kernels._simt.set_recorder(None)
    with run_on_ptx("90a", seed=seed) as shuffled:
        got = by_clusters(shuffled, *args)
    kernels._simt.set_recorder(kernels.run)
    assert all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(got, want))


TRUE = "setp.eq.u32 p, 0, 0;"
# What is left out of the kernel's PTX, and what then happens in one of a few orders of its warps and blocks.
FAULTS = {
    "wait for boxes": (r"mbarrier\.try_wait\.parity\.shared::cta\.b64 p, [^;]*;", TRUE, "that a bulk copy has yet to fill"),
    "wait for other blocks": (r"mbarrier\.try_wait\.parity\.acquire[^;]*;", TRUE, "has yet to fill|wrong bits"),
    "fence of barriers": (r"fence\.mbarrier_init[^;]*;", "", "without a fence"),
    "warps are through": (r"bar\.sync\s+0;", "", "wrong bits"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_show(kernels, fault):
    pattern, instead, symptom = FAULTS[fault]
    args = *operands(BFLOAT, 70, 592, 16), "int8"
    want = by_clusters(kernels, *args)
    kernels._simt.set_recorder(None)
    seen = set()
    for seed in range(4):
        with run_on_ptx("90a", seed=seed) as broken:
            file = next(one for one in broken._files if one.source.stem == CLUSTERS_FILE)
            file.text, count = re.subn(pattern, instead, file.text)
            assert count
            try:
                got = by_clusters(broken, *args)
                seen.add("the same bits" if all(map(torch.equal, got, want)) else "wrong bits")
            except PtxFault as fault_seen:
                seen.add(str(fault_seen))
        if any(re.search(symptom, one) for one in seen):
            break
    kernels._simt.set_recorder(kernels.run)
    assert any(re.search(symptom, one) for one in seen), seen


def test_every_kernel_of_the_file_runs(kernels):
    for dtype in (HALF, BFLOAT):
        for rank in (8, 64):
            check(kernels, *operands(dtype, 3, 128, rank), "int8")
    assert kernels.launched[CLUSTERS_FILE] == kernels.entries_of(CLUSTERS_FILE)
