"""q/k norm with RoPE and the caches' arithmetic in Triton, beyond the sizes of the conformance suite."""

import itertools

import pytest
import torch

from halfbyte.ops import OPS, NoBackendError, use_backend
from halfbyte.testing import Inputs, assert_close, format_name, poisoned_empty

pytest.importorskip("triton")
from halfbyte.triton_kernels.cache import total_l1_kernel

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FLOATS = (torch.float16, torch.bfloat16, torch.float32)
PER_HEAD, ALL_HEADS, NONE = "per head", "all heads", "no norm"


def run(name, *args):
    with use_backend("triton"), poisoned_empty():
        return OPS[name](*args)


def check(name, *args):
    got, want = run(name, *args), OPS[name].reference(*args)
    for first, second in zip(*(x if isinstance(x, tuple) else (x,) for x in (got, want)), strict=True):
        assert first.dtype == second.dtype
        assert_close(name, first, second, format_name(first.dtype))


def rope_call(
    batch, tokens, heads, width, norms=(PER_HEAD, PER_HEAD), rope="interleaved", dtype=torch.bfloat16, other_dtype=None
):
    """heads: of q and of k. other_dtype: of weights and angles."""
    inputs, other = Inputs(dtype, DEVICE), Inputs(other_dtype or dtype, DEVICE, seed=1)
    q, k = (inputs.normal(batch, tokens, count, width) for count in heads)
    sizes = {PER_HEAD: lambda count: width, ALL_HEADS: lambda count: count * width}
    weights = [None if norm == NONE else other.positive(sizes[norm](count)) for norm, count in zip(norms, heads, strict=True)]
    angle = other.normal(tokens, width // 2).float()
    return q, k, *weights, angle.cos().to(other.dtype), angle.sin().to(other.dtype), 1e-5, rope


@pytest.mark.parametrize("norm", [PER_HEAD, ALL_HEADS, NONE])
@pytest.mark.parametrize("rope", ["interleaved", "half"])
@pytest.mark.parametrize("width", [2, 64, 72, 128, 1040])
def test_rope_of_any_width(width, rope, norm):
    check("qk_norm_rope", *rope_call(2, 3, (3, 3), width, (norm, norm), rope))


@pytest.mark.parametrize("heads", [(24, 24), (16, 2), (1, 5), (40, 40)])
@pytest.mark.parametrize("tokens", [1, 77])
def test_rope_of_grouped_queries_and_the_heads_of_models(heads, tokens):
    check("qk_norm_rope", *rope_call(2, tokens, heads, 64))
    check("qk_norm_rope", *rope_call(2, tokens, heads, 64, (ALL_HEADS, ALL_HEADS), "half"))


@pytest.mark.parametrize("norms", [(PER_HEAD, ALL_HEADS), (NONE, PER_HEAD), (ALL_HEADS, NONE)])
def test_q_and_k_may_differ_in_norm(norms):
    check("qk_norm_rope", *rope_call(2, 5, (4, 3), 48, norms))


@pytest.mark.parametrize(("dtype", "other_dtype"), itertools.product(FLOATS, FLOATS), ids=str)
def test_dtypes_may_differ(dtype, other_dtype):
    check("qk_norm_rope", *rope_call(1, 5, (2, 2), 72, (PER_HEAD, ALL_HEADS), "half", dtype, other_dtype))
    x, other = Inputs(dtype, DEVICE).normal(3, 77), Inputs(other_dtype, DEVICE, seed=1)
    for name in ("rel_l1", "delta_apply"):
        check(name, x, other.normal(3, 77))
    check("affine_correct", x, other.normal(77), other.normal(77))


def joint_call(batch, tokens, heads, width, rope="interleaved", dtype=torch.bfloat16, other_dtype=torch.float32):
    """tokens: of both streams; heads: of queries and of keys. Each stream's are views of one product's output."""
    inputs, other = Inputs(dtype, DEVICE), Inputs(other_dtype, DEVICE, seed=1)
    packed = heads[0], heads[1], heads[1]
    streams = [inputs.normal(batch, length, sum(packed), width).split(packed, 2) for length in tokens]
    angle = other.normal(sum(tokens), width // 2).float()
    angles = angle.cos().to(other_dtype), angle.sin().to(other_dtype)
    return *streams[0], *streams[1], *(other.positive(width) for _ in range(4)), *angles, 1e-5, rope


@pytest.mark.parametrize("rope", ["interleaved", "half"])
@pytest.mark.parametrize("width", [2, 72, 128, 1040])
def test_joint_rope_of_any_width(width, rope):
    check("joint_qkv_norm_rope", *joint_call(2, (3, 4), (2, 2), width, rope))


@pytest.mark.parametrize("tokens", [(1, 1), (77, 3)], ids=str)
@pytest.mark.parametrize("heads", [(24, 24), (16, 2), (1, 5)], ids=str)
def test_joint_rope_of_grouped_queries_and_the_heads_of_models(heads, tokens):
    check("joint_qkv_norm_rope", *joint_call(2, tokens, heads, 64))


def test_norms_too_wide_for_a_program_are_refused():
    with pytest.raises(NoBackendError, match="q must be normalized over at most 8192 elements, got 16384"):
        run("qk_norm_rope", *rope_call(1, 1, (128, 1), 128, (ALL_HEADS, NONE)))
    with pytest.raises(NoBackendError, match="heads must be at most 8192 wide, got 16384"):
        run("joint_qkv_norm_rope", *joint_call(1, (1, 1), (1, 1), 16384))


@pytest.mark.parametrize("shape", [(1,), (4095,), (4096,), (4097,), (2, 11, 1), (2, 11, 77), (3, 5, 1025)], ids=str)
def test_caches_of_any_shape(shape):
    inputs = Inputs(torch.bfloat16, DEVICE)
    x, y, scale, shift = inputs.normal(*shape), inputs.normal(*shape), inputs.normal(shape[-1]), inputs.normal(shape[-1])
    check("rel_l1", x, y)
    check("delta_apply", x, y)
    check("affine_correct", x, scale, shift)


@pytest.mark.parametrize("steps", range(1, 9))
def test_forecast_of_any_length(steps):
    inputs = Inputs(torch.bfloat16, DEVICE)
    check("forecast", [inputs.normal(5, 77) for _ in range(steps)], torch.randn(steps, device=DEVICE))


def test_more_parts_than_are_added_at_once():
    sums, out = torch.rand(2, 2500, device=DEVICE), torch.empty((), device=DEVICE)
    total_l1_kernel[(1,)](sums, out, PARTS=2500, BLOCK=1024)
    assert_close("rel_l1", out, (sums[0].double().sum() / sums[1].double().sum()).float(), "float32")


def test_rel_l1_of_many_parts_has_the_same_bits_in_every_run():
    value, base = torch.randn(2, 99, 4096, device=DEVICE).to(torch.bfloat16)
    want = (value.double() - base.double()).abs().sum() / base.double().abs().sum()
    first, second = run("rel_l1", value, base), run("rel_l1", value, base)
    assert torch.equal(first, second)
    assert_close("rel_l1", first, want.float(), "float32")


def test_rel_l1_of_zeros_is_nan_and_nan_is_kept():
    x = torch.zeros(5, 8, dtype=torch.bfloat16, device=DEVICE)
    assert run("rel_l1", x, x).isnan() and run("rel_l1", x + 1, x).isinf()
    x[2, 3] = float("nan")
    assert run("rel_l1", x, x + 1).isnan()
    assert run("delta_apply", x, x).isnan().sum() == 1


def test_views_are_read_as_what_they_show():
    x = Inputs(torch.bfloat16, DEVICE).normal(6, 8, 10)
    check("delta_apply", x.transpose(0, 1), x.transpose(0, 1))
    check("affine_correct", x[:, ::2], x[0, 0], x[1, 0])
