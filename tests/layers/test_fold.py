"""Storage folded to 8 bits: how much error that adds, which bits it gives, and how many bytes it takes on the way."""

import pytest
import torch

from halfbyte.formats import LayerFormat, fp8, int8
from halfbyte.layers import fold_rows, merged_branch, storage
from halfbyte.layers.fold import channel_scales, fold
from halfbyte.layers.matrix import smooth_columns
from halfbyte.layers.storage import dequantize_residual, dequantize_storage, quantize_storage
from halfbyte.layers.stored_rows import WORKING_BYTES
from halfbyte.ops import OPS
from halfbyte.testing import FOLD_LIMITS, LIMITS, PeakBytes, relative_rms

FORMATS = {"int8": int8, "fp8": fp8}
FOLDS = pytest.mark.parametrize(("stored", "format"), FOLD_LIMITS, ids=[f"{stored}-{format}" for stored, format in FOLD_LIMITS])


def stored_layer(stored, n, k, rank=0, branch=1.0, heavy=False):
    """Storage, format and shape of a weight; branch: how large the low-rank part is beside the rest."""
    weight = torch.distributions.StudentT(5.0).sample((n, k)) if heavy else torch.randn(n, k)
    layer_format = LayerFormat(stored, stored, rank=rank, smooth=rank > 0)
    companions = {}
    if rank:
        up, down = torch.randn(n, rank) * branch * rank**-0.5, torch.randn(k, rank)
        weight = weight + up @ down.t()
        companions = {"smooth_factor": torch.rand(k) + 0.5, "proj_down": down, "proj_up": up}
    return quantize_storage(weight.bfloat16(), layer_format, **companions), layer_format, (n, k)


def as_float(folded, format):
    return FORMATS[format].dequantize(folded.qweight, folded.wscales.unsqueeze(-1))


@FOLDS
@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "heavy-tails"])
def test_folding_adds_no_more_error_than_the_table_says(stored, format, heavy):
    tensors, layer_format, shape = stored_layer(stored, 256, 3072, heavy=heavy)
    error = relative_rms(as_float(fold(tensors, layer_format, shape, format), format), dequantize_residual(tensors, layer_format))
    limit = FOLD_LIMITS[stored, format][heavy]
    assert 0.7 * limit < error < limit


def test_values_that_e4m3_holds_stay_exact():
    tensors, layer_format, shape = stored_layer("nvfp4", 64, 256)
    tensors["wscales"] = torch.full_like(tensors["wscales"].float(), 0.75).to(torch.float8_e4m3fn)
    tensors["wtscale"] = torch.tensor([0.1])
    folded = fold(tensors, layer_format, shape, "fp8")
    mantissa, _ = torch.frexp(folded.wscales / tensors["wtscale"])
    assert mantissa.unique().tolist() == [0.5]
    assert torch.equal(as_float(folded, "fp8") / 0.1, dequantize_residual(tensors, layer_format) / 0.1)


@pytest.mark.parametrize("peak", [0.0, 1e-45, 2.0**-100, 0.3, 447.9, 448.0, 448.1, 896.0, 3e38, float("inf"), float("nan")])
def test_a_power_of_two_scale_is_the_smallest_that_fits(peak):
    scale = fp8.power_of_two_scale(torch.tensor([peak]))
    if peak != peak:
        assert scale.isnan()
        return
    assert torch.frexp(scale).mantissa == 0.5
    if 2.0**-100 <= peak <= 3e38:
        assert peak <= 448 * scale.double() and peak > 224 * scale.double()


@FOLDS
@pytest.mark.parametrize("branch", [0.05, 30.0], ids=["merged", "beside"])
def test_chunks_give_the_bits_of_the_whole(stored, format, branch):
    tensors, layer_format, shape = stored_layer(stored, 136, 256, rank=8, branch=branch)
    whole = fold(tensors, layer_format, shape, format)
    assert whole.rank == (0 if branch < 1 else 8)
    for working_bytes in (1, 16 * 256 * 24, 16 * 256 * 64):
        part = fold(tensors, layer_format, shape, format, working_bytes)
        for name in ("qweight", "wscales"):
            assert torch.equal(getattr(part, name).float(), getattr(whole, name).float()), (working_bytes, name)
        assert part.rank == whole.rank


@FOLDS
def test_a_merged_branch_is_in_the_codes(stored, format):
    tensors, layer_format, shape = stored_layer(stored, 136, 256, rank=8, branch=0.05)
    folded = fold(tensors, layer_format, shape, format)
    want = dequantize_storage(tensors, layer_format, shape) * smooth_columns(tensors["smooth_factor"], shape)
    assert folded.proj_up is None and relative_rms(as_float(folded, format), want) < LIMITS[format].rounding


@FOLDS
def test_the_rule_looks_at_the_error_of_the_output(stored, format, monkeypatch):
    sizes = (0.01, 1.0, 3.0, 10.0, 30.0)
    growth = [merged_branch.error_growth(*stored_layer(stored, 64, 256, rank=8, branch=size), format) for size in sizes]
    assert growth == sorted(growth) and growth[0] < merged_branch.MERGED_GROWTH < growth[-1]
    # Looked at as a whole, a layer with more output channels than are sampled gets nearly the same answer.
    layer = stored_layer(stored, 1024, 256, rank=8, branch=3.0)
    sampled = merged_branch.error_growth(*layer, format)
    monkeypatch.setattr(merged_branch, "SAMPLED_CHANNELS", 1024)
    assert abs(merged_branch.error_growth(*layer, format) - sampled) < 0.1 * sampled + 0.002


@FOLDS
def test_scales_alone_are_those_of_the_fold(stored, format):
    tensors, layer_format, shape = stored_layer(stored, 136, 256)
    scales = channel_scales(tensors, layer_format, shape, format)
    assert torch.equal(scales * tensors.get("wtscale", torch.ones(1)), fold(tensors, layer_format, shape, format).wscales)


def test_peak_bytes_counts_what_is_held_at_once():
    x = torch.randn(1000)
    with PeakBytes() as peak:
        y = x + 1
        y.add_(x.view(10, 100).view(1000))
        y = (y * 2).view(10, 100)
        y = y[:, 1:] + 1
    assert peak.bytes == 8000


LARGE = [(3072, 3072), (12288, 3072), (3072, 15360), (18432, 3072), (5120, 13824)]


@FOLDS
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_the_peak_beyond_storage_and_result_stays_below_the_stated_bytes(stored, format, shape, monkeypatch):
    layer_format = LayerFormat(stored, stored)
    schema = layer_format.tensors(*shape)
    tensors = {name: torch.empty(size, dtype=dtype, device="meta") for name, (size, dtype) in schema.items()}
    # Inside an op nothing is counted: its reference holds the most.
    monkeypatch.setattr(fold_rows.ops, "fold_weight", OPS["fold_weight"].reference)
    with PeakBytes() as peak:
        folded = fold(tensors, layer_format, shape, format)
    beyond = peak.bytes - folded.qweight.nbytes - folded.wscales.nbytes
    assert WORKING_BYTES / 4 < beyond <= WORKING_BYTES


@pytest.mark.parametrize("with_extension", [True, False])
@FOLDS
def test_so_does_the_choice_whether_to_merge(stored, format, with_extension, monkeypatch):
    tensors, layer_format, shape = stored_layer(stored, 256, 15360, rank=32, branch=0.1)
    monkeypatch.setattr(fold_rows.ops, "fold_weight", OPS["fold_weight"].reference)
    if not with_extension:
        monkeypatch.setattr(storage, "extension", lambda: None)
    with PeakBytes() as peak:
        folded = fold(tensors, layer_format, shape, format)
    assert folded.rank == 0 and peak.bytes - folded.qweight.nbytes <= WORKING_BYTES


@FOLDS
def test_a_nan_shows_and_stays_in_its_channel(stored, format):
    tensors, layer_format, shape = stored_layer(stored, 16, 128)
    clean = as_float(fold(tensors, layer_format, shape, format), format)
    tensors["wscales"][0, 3] = float("nan")
    found = as_float(fold(tensors, layer_format, shape, format), format)
    assert found[3].isnan().any() and torch.equal(found[torch.arange(16) != 3], clean[torch.arange(16) != 3])


def test_a_weight_of_zeros_folds_to_zeros():
    for stored, format in FOLD_LIMITS:
        layer_format = LayerFormat(stored, stored)
        tensors = quantize_storage(torch.zeros(8, 128), layer_format)
        folded = fold(tensors, layer_format, (8, 128), format)
        assert folded.wscales.isfinite().all() and not as_float(folded, format).any()
