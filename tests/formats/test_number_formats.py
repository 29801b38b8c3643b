"""Rounding against ml_dtypes, and what holds for any input: finite results, half-step errors, scales in their stored type."""

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from halfbyte.formats import fp8, int4, int8, nvfp4
from halfbyte.formats.nvfp4 import e2m1_decode, e2m1_encode, e2m1_round

ROUND_TRIPS = {
    "int4": lambda x: int4.dequantize(*int4.quantize(x)),
    "int4_unsigned": lambda x: int4.dequantize(*int4.quantize(x, unsigned=True)),
    "int8": lambda x: int8.dequantize(*int8.quantize(x)),
    "int8_segments": lambda x: int8.dequantize(*int8.quantize(x, segments=2)),
    "fp8": lambda x: fp8.dequantize(*fp8.quantize(x)),
    "nvfp4": lambda x: nvfp4.dequantize(*nvfp4.quantize(x)),
    "nvfp4_four_over_six": lambda x: nvfp4.dequantize(*nvfp4.quantize(x, four_over_six=True)),
    "nvfp4_fixed_outer": lambda x: nvfp4.dequantize(*nvfp4.quantize(x, outer_scale=torch.ones(()))),
}


def boundary_values(step: float, largest: float) -> torch.Tensor:
    """Every multiple of step up to largest and its float32 neighbours, both signs: all ties and all near-ties."""
    grid = torch.arange(0, largest + step, step)
    near = torch.cat([grid, grid.nextafter(torch.tensor(torch.inf)), grid.nextafter(torch.tensor(-torch.inf))])
    return torch.cat([near, -near])


def test_e2m1_encode_agrees_with_ml_dtypes():
    extremes = torch.tensor([1e30, -1e30, 1e-40, -0.0, torch.inf, -torch.inf])
    x = torch.cat([boundary_values(0.125, 8), torch.randn(4096) * 3, extremes])
    want = x.numpy().astype(ml_dtypes.float4_e2m1fn)
    assert (e2m1_encode(x).numpy() == want.view(np.uint8)).all()
    assert (e2m1_decode(e2m1_encode(x)).numpy() == want.astype(np.float32)).all()
    before = x.clone()
    assert torch.equal(e2m1_round(x).view(torch.int32), e2m1_decode(e2m1_encode(x)).view(torch.int32))
    assert torch.equal(x, before)


def test_e2m1_round_keeps_nan():
    assert e2m1_round(torch.tensor([torch.nan, 2.6])).tolist()[1] == 3 and e2m1_round(torch.tensor([torch.nan])).isnan()


def test_e2m1_decode_agrees_with_ml_dtypes():
    codes = np.arange(16, dtype=np.uint8)
    want = codes.view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    ours = e2m1_decode(torch.from_numpy(codes.view(np.int8))).numpy()
    assert ours.tobytes() == want.tobytes()


def test_to_e4m3_agrees_with_ml_dtypes_inside_the_range_and_saturates_outside():
    x = torch.cat([boundary_values(2.0**-11, 0.1), boundary_values(8, 448), torch.randn(4096) * 100]).clamp(-448, 448)
    assert (fp8.to_e4m3(x).view(torch.uint8).numpy() == x.numpy().astype(ml_dtypes.float8_e4m3fn).view(np.uint8)).all()
    assert fp8.to_e4m3(torch.tensor([449.0, 1e9, -torch.inf])).tolist() == [448.0, 448.0, -448.0]


def test_int4_agrees_with_ml_dtypes_at_unit_scale():
    x = torch.cat([boundary_values(0.25, 7), torch.full((1,), 7.0)])
    x = torch.nn.functional.pad(x.clamp(-7, 7), (0, -len(x) % 64), value=7.0)
    for group in x.split(64):
        group[0] = 7.0
        codes, scales = int4.quantize(group)
        assert scales.item() == 1
        assert (codes.numpy() == np.rint(group.numpy()).astype(ml_dtypes.int4).astype(np.int8)).all()


@pytest.mark.parametrize("name", ROUND_TRIPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-40, 1e-30, 1e-7, 1.0, 6e4, 3e38, torch.inf])
def test_everything_stays_finite_and_of_its_own_sign(name, dtype, size):
    torch.manual_seed(0)
    x = (torch.randn(3, 128).clamp(-1, 1) * size).nan_to_num(0, torch.inf, -torch.inf).to(dtype)
    x[0] = 0
    y = ROUND_TRIPS[name](x)
    assert y.dtype == torch.float32 and torch.isfinite(y).all()
    assert (y[0] == 0).all() and (y * x.sign().float() >= 0).all()


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_nan_spreads_to_its_group_rather_than_vanishing(name):
    x = torch.ones(2, 128)
    x[1, 70] = torch.nan
    y = ROUND_TRIPS[name](x)
    assert y[1, 70].isnan()
    if name not in ("nvfp4", "nvfp4_four_over_six"):
        assert torch.isfinite(y[0]).all()


@pytest.mark.parametrize("scale_dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("unsigned", [False, True], ids=["signed", "unsigned"])
def test_int4_error_is_half_a_step_of_the_rounded_scale(scale_dtype, unsigned):
    torch.manual_seed(1)
    x = torch.rand(7, 192) if unsigned else torch.randn(7, 192)
    codes, scales = int4.quantize(x, unsigned, scale_dtype)
    assert scales.dtype == scale_dtype and scales.shape == (7, 3)
    assert codes.min() >= (0 if unsigned else -7) and codes.max() == (15 if unsigned else 7)
    # A scale rounded down to bfloat16 leaves the peak up to 2^-8 of itself beyond the last code.
    step = scales.float().repeat_interleave(64, -1)
    limit = step / 2 + 15 * step * torch.finfo(scale_dtype).eps
    assert ((int4.dequantize(codes, scales) - x).abs() <= limit).all()


@pytest.mark.parametrize("scale_dtype", [torch.bfloat16, torch.float16], ids=str)
def test_int4_codes_are_those_of_the_rounded_scale_not_of_the_exact_one(scale_dtype):
    x = torch.randn(64, 1920, generator=torch.Generator().manual_seed(2))
    codes, scales = int4.quantize(x, scale_dtype=scale_dtype)
    groups = x.unflatten(-1, (-1, 64))
    exact = groups.abs().amax(-1) / 7
    assert torch.equal(scales, exact.to(scale_dtype))
    assert torch.equal(codes.unflatten(-1, (-1, 64)), (groups / scales.float().unsqueeze(-1)).round().clamp(-7, 7).to(torch.int8))
    assert (codes.unflatten(-1, (-1, 64)) != (groups / exact.unsqueeze(-1)).round()).any()


def test_int4_scales_default_to_the_type_of_x():
    assert int4.quantize(torch.ones(1, 64, dtype=torch.float16))[1].dtype == torch.float16


def test_int8_segments_have_their_own_scale():
    x = torch.cat([torch.ones(1, 48), torch.full((1, 48), 1000.0)], -1)
    assert int8.quantize(x, segments=2)[1].tolist() == [[pytest.approx(1 / 127), pytest.approx(1000 / 127)]]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), spread=st.floats(0, 4), offset=st.floats(-3, 3))
def test_four_over_six_is_never_worse_in_any_block(seed, spread, offset):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, 96, generator=generator) * torch.exp(spread * torch.randn(5, 96, generator=generator)) + offset
    outer_scale = nvfp4.outer_scale_of(x, four_over_six=True)

    def block_errors(four_over_six: bool) -> torch.Tensor:
        y = nvfp4.dequantize(*nvfp4.quantize(x, outer_scale, four_over_six))
        return (y.double() - x.double()).square().unflatten(-1, (6, 16)).sum(-1)

    assert (block_errors(True) <= block_errors(False) * (1 + 1e-5)).all()


def test_four_over_six_picks_four_where_the_grid_is_better():
    # With peak 4 the values 2 and 3 are on the grid; with peak 6 they become 3 and 4.5, and 4.5 is not.
    block = torch.tensor([4.0, 3.0, 2.0, 3.0] * 4).reshape(1, 16)
    outer_scale = torch.ones(())
    assert nvfp4.quantize(block, outer_scale, four_over_six=True)[1].item() == 1.0
    assert torch.equal(nvfp4.dequantize(*nvfp4.quantize(block, outer_scale, four_over_six=True)), block)
    assert not torch.equal(nvfp4.dequantize(*nvfp4.quantize(block, outer_scale)), block)


def test_nvfp4_uses_the_whole_range_of_block_scales():
    x = torch.randn(4, 64)
    assert nvfp4.quantize(x)[1].float().max() == 448
    assert 256 <= nvfp4.quantize(x, four_over_six=True)[1].float().max() <= 384


@pytest.mark.parametrize(("module", "size"), [(int4, 64), (nvfp4, 16)], ids=["int4", "nvfp4"])
def test_a_k_that_does_not_divide_is_refused(module, size):
    with pytest.raises(ValueError, match=f"x: the last dimension must be a multiple of group_size {size}, got 100"):
        module.quantize(torch.ones(2, 100))


@pytest.mark.parametrize("module", [int8, fp8], ids=["int8", "fp8"])
def test_segments_that_do_not_divide_are_refused(module):
    with pytest.raises(ValueError, match="3 segments do not divide the last dimension, 64"):
        module.quantize(torch.ones(2, 64), segments=3)
