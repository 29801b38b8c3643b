"""The comparison every kernel is judged by must itself be able to fail."""

import pytest
import torch

from halfbyte.testing import LAYER_SHAPES, LIMITS, ODD_SHAPES, assert_close, cropped, poisoned_empty, relative_rms


@pytest.mark.parametrize("format", LIMITS)
def test_assert_close_fails_just_over_the_limit(format):
    want, limit = torch.randn(1000), LIMITS[format].agreement
    assert_close("y", want * (1 + 0.9 * limit), want, format)
    with pytest.raises(AssertionError, match=f"y: relative RMS error .* is over the {format} limit"):
        assert_close("y", want * (1 + 1.1 * limit), want, format)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_one_bad_value_is_an_infinite_error(bad):
    want = torch.ones(1000)
    got = want.clone()
    got[500] = bad
    assert relative_rms(got, want) == torch.inf and relative_rms(want, got) == torch.inf


def test_zeros_are_close_to_zeros_only():
    zero = torch.zeros(4)
    assert relative_rms(zero, zero) == 0 and relative_rms(zero + 1e-30, zero) == torch.inf
    with pytest.raises(AssertionError, match=r"y: shape \[4\] needed, got \[3\]"):
        assert_close("y", zero[:3], zero, "float32")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_fresh_memory_is_nan_inside_and_settings_come_back(dtype):
    before = torch.are_deterministic_algorithms_enabled()
    with poisoned_empty():
        assert torch.empty(5, dtype=dtype).float().isnan().all()
        assert torch.ones(2, dtype=torch.float32).new_empty(3, dtype=dtype).float().isnan().all()
        assert (torch.empty(3, dtype=torch.int8) == 127).all()
    assert torch.are_deterministic_algorithms_enabled() == before


def test_shapes_suit_the_coarsest_format_and_have_names_of_their_own():
    shapes = (*LAYER_SHAPES, *ODD_SHAPES)
    assert all(shape.k % 64 == 0 and shape.n % 8 == 0 for shape in shapes)
    assert len({shape.name for shape in shapes}) == len(shapes)


def test_cropped_shapes_are_small_and_distinct():
    shapes = cropped((*LAYER_SHAPES, *ODD_SHAPES), 33, 136, 192)
    sizes = [(shape.m, shape.n, shape.k) for shape in shapes]
    assert len(set(sizes)) == len(sizes) and (1, 136, 192) in sizes and (1, 72, 64) in sizes
    assert max(sizes) <= (33, 136, 192)
