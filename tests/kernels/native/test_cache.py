"""The feature caches' arithmetic on the CUDA kernels' source."""

import itertools

import pytest
import torch

from halfbyte.ops import OPS, NoBackendError, use_backend
from halfbyte.testing import SCHEDULES, assert_close, format_name

FLOATS = (torch.float16, torch.bfloat16, torch.float32)
# One element, a run of eight and its neighbours, a block of runs and its neighbours.
COUNTS = (1, 7, 8, 9, 77, 2047, 2048, 2049)
# More than the 1,024 blocks of rel_l1 take in one go.
MANY = 1024 * 256 * 8 + 12345


def assert_agrees(run, name, args, **options):
    got, want = run(name, args, **options), OPS[name].reference(*args)
    assert got.dtype == want.dtype
    assert_close(name, got, want, format_name(got.dtype))


def assert_all_agree(run, shape, dtype=torch.bfloat16, other_dtype=None, **options):
    x, other = torch.randn(shape).to(dtype), torch.randn(shape).to(other_dtype or dtype)
    scale, shift = (torch.randn(shape[-1:]).to(other_dtype or dtype) for _ in range(2))
    assert_agrees(run, "rel_l1", (x, other), **options)
    assert_agrees(run, "delta_apply", (x, other), **options)
    assert_agrees(run, "affine_correct", (x, scale, shift), **options)
    assert_agrees(run, "forecast", ([x, other.to(dtype)], torch.tensor([1.5, -0.5])), **options)


@pytest.mark.parametrize("count", COUNTS)
def test_ragged_ends(run, count):
    for dtype in FLOATS:
        assert_all_agree(run, (count,), dtype)


@pytest.mark.parametrize("channels", [1, 3, 8, 72, 77, 320])
def test_channels_need_fill_no_vector(run, channels):
    assert_all_agree(run, (2, 11, channels))


@pytest.mark.parametrize(("dtype", "other_dtype"), itertools.permutations(FLOATS, 2), ids=str)
def test_dtypes_may_differ(run, dtype, other_dtype):
    assert_all_agree(run, (3, 77), dtype, other_dtype)


@pytest.mark.parametrize("steps", range(1, 9))
def test_forecast_of_any_length(run, steps):
    history = [torch.randn(5, 77).to(torch.bfloat16) for _ in range(steps)]
    assert_agrees(run, "forecast", (history, torch.randn(steps)))


def test_rel_l1_of_more_elements_than_its_blocks_take_at_once(run):
    value, base = torch.randn(MANY).to(torch.bfloat16), torch.rand(MANY).to(torch.bfloat16)
    want = (value.double() - base.double()).abs().sum() / base.double().abs().sum()
    assert_close("rel_l1", run("rel_l1", (value, base)), want.float(), "float32")


def test_rel_l1_of_nothing_and_of_zeros(run):
    zeros = torch.zeros(100)
    assert run("rel_l1", (zeros, zeros)).isnan()
    assert run("rel_l1", (zeros + 1, zeros)).isinf()
    assert run("rel_l1", (torch.full((9,), torch.nan), torch.ones(9))).isnan()


def test_every_schedule_gives_the_same_bits_without_a_race(run):
    assert_all_agree(run, (11, 200), schedules=SCHEDULES, races=True)


def test_views_that_are_not_aligned_or_dense(run):
    wide = torch.randn(6, 81).to(torch.bfloat16)
    assert_agrees(run, "delta_apply", (wide.view(-1)[1:400], wide.view(-1)[2:401]))
    assert_agrees(run, "rel_l1", (wide[:, 1:], wide[:, :-1]))
    assert_agrees(run, "affine_correct", (wide.t(), wide[:, 0], wide[:, 3]))


def test_an_empty_tensor_is_refused_in_a_sentence(simt):
    for name, args in {"delta_apply": (torch.ones(0, 3),) * 2, "forecast": ([torch.ones(0)], torch.ones(1))}.items():
        with use_backend("simt"), pytest.raises(NoBackendError, match="an empty tensor of shape .* is left to the reference"):
            OPS[name](*args)
