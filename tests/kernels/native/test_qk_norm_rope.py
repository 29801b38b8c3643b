"""qk_norm_rope on the CUDA kernels' source: lanes of a warp per head, and a block per norm for the rest."""

import pytest
import torch

from halfbyte.ops import NoBackendError, qk_norm_rope, use_backend
from halfbyte.testing import SCHEDULES, Inputs, assert_close, format_name

PER_HEAD, ALL_HEADS, NONE = "per head", "all heads", "no norm"
WIDTHS = [2, 16, 32, 64, 72, 80, 96, 128, 256, 1040]


def call(batch, tokens, heads, width, norms=(PER_HEAD, PER_HEAD), rope="interleaved", dtype=torch.bfloat16, other_dtype=None):
    """heads: of q and of k. other_dtype: of weights and angles."""
    inputs, other = Inputs(dtype), Inputs(other_dtype or dtype, seed=1)
    q, k = (inputs.normal(batch, tokens, count, width) for count in heads)
    sizes = {PER_HEAD: lambda count: width, ALL_HEADS: lambda count: count * width}
    weights = [None if norm == NONE else other.positive(sizes[norm](count)) for norm, count in zip(norms, heads, strict=True)]
    angle = torch.randn(tokens, width // 2)
    return q, k, *weights, angle.cos().to(other.dtype), angle.sin().to(other.dtype), 1e-5, rope


def assert_agrees(run, args, **options):
    got, want = run("qk_norm_rope", args, **options), qk_norm_rope.reference(*args)
    for name, first, second in zip("qk", got, want, strict=True):
        assert_close(name, first, second, format_name(first.dtype))


@pytest.mark.parametrize("rope", ["interleaved", "half"])
@pytest.mark.parametrize("width", WIDTHS)
def test_widths(run, width, rope):
    for norm in (PER_HEAD, ALL_HEADS, NONE):
        assert_agrees(run, call(2, 3, (3, 3), width, (norm, norm), rope))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("other_dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_dtypes(run, dtype, other_dtype):
    for width in (72, 128):
        assert_agrees(run, call(1, 5, (2, 2), width, (PER_HEAD, ALL_HEADS), "half", dtype, other_dtype))


@pytest.mark.parametrize("heads", [(1, 1), (24, 24), (16, 2), (1, 5)])
@pytest.mark.parametrize("tokens", [1, 77])
def test_grouped_queries(run, heads, tokens):
    assert_agrees(run, call(2, tokens, heads, 64))
    assert_agrees(run, call(2, tokens, heads, 64, (ALL_HEADS, ALL_HEADS), "half"))


@pytest.mark.parametrize(("heads", "width"), [(24, 128), (12, 128), (40, 128), (38, 64)])
def test_layers_of_models(run, heads, width):
    assert_agrees(run, call(1, 9, (heads, heads), width, other_dtype=torch.float32))
    assert_agrees(run, call(1, 9, (heads, heads), width, (ALL_HEADS, ALL_HEADS), other_dtype=torch.float32))


@pytest.mark.parametrize("norms", [(PER_HEAD, ALL_HEADS), (NONE, PER_HEAD), (ALL_HEADS, NONE)])
def test_q_and_k_may_differ_in_norm(run, norms):
    assert_agrees(run, call(2, 5, (4, 3), 48, norms))


@pytest.mark.parametrize("norm", [PER_HEAD, ALL_HEADS])
@pytest.mark.parametrize("width", [64, 72])
def test_every_schedule_gives_the_same_bits_without_a_race(run, width, norm):
    assert_agrees(run, call(1, 3, (3, 5), width, (norm, norm)), schedules=SCHEDULES, races=True)


def test_a_nan_stays_in_its_head(run):
    q, *rest = call(1, 2, (3, 3), 64)
    q = q.clone()
    q[0, 1, 1, 5] = torch.nan
    got, _ = run("qk_norm_rope", (q, *rest))
    assert got[0, 1, 1].isnan().all() and got.isnan().sum() == 64


def test_the_choice_follows_from_the_sizes(simt):
    assert simt.describe_qk_norm_rope(128, 128) == "8 lanes for each head"
    assert simt.describe_qk_norm_rope(96, 96) == "8 lanes for each head"
    assert simt.describe_qk_norm_rope(128, 5120) == "320 threads for each norm"
    assert simt.describe_qk_norm_rope(72, 72) == "64 threads for each norm"
    assert simt.describe_qk_norm_rope(128, 24576) == "512 threads for each norm"


def test_an_empty_tensor_is_refused_in_a_sentence(simt):
    args = call(1, 0, (2, 2), 32)
    with use_backend("simt"), pytest.raises(NoBackendError, match=r"q must not be empty, got shape \[1, 0, 2, 32\]"):
        qk_norm_rope(*args)
