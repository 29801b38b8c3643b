"""joint_qkv_norm_rope on the CUDA kernels' source, and that neither op copies rows of a wider product."""

import pytest
import torch

from halfbyte.ops import NoBackendError, joint_qkv_norm_rope, qk_norm_rope, use_backend
from halfbyte.ops.native.qk_norm_rope import rows_of_heads
from halfbyte.testing import SCHEDULES, Inputs, assert_close, format_name


def call(batch, tokens, heads, width, rope="interleaved", dtype=torch.bfloat16, other_dtype=torch.float32):
    """tokens: of both streams; heads: of queries and of keys. Each stream's are views of one product's output."""
    inputs, other = Inputs(dtype), Inputs(other_dtype, seed=1)
    packed = heads[0], heads[1], heads[1]
    streams = [inputs.normal(batch, length, sum(packed), width).split(packed, 2) for length in tokens]
    angle = torch.randn(sum(tokens), width // 2)
    angles = angle.cos().to(other_dtype), angle.sin().to(other_dtype)
    return *streams[0], *streams[1], *(other.positive(width) for _ in range(4)), *angles, 1e-5, rope


def assert_agrees(run, args, **options):
    got, want = run("joint_qkv_norm_rope", args, **options), joint_qkv_norm_rope.reference(*args)
    for name, first, second in zip("qk", got, want, strict=False):
        assert_close(name, first, second, format_name(first.dtype))
    assert torch.equal(got[2], want[2])


@pytest.mark.parametrize("rope", ["interleaved", "half"])
@pytest.mark.parametrize("width", [2, 16, 72, 96, 128, 528, 1040])
def test_widths(run, width, rope):
    assert_agrees(run, call(2, (3, 4), (2, 2), width, rope))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("tokens", [(1, 1), (7, 40), (40, 7)], ids=str)
def test_dtypes_and_lengths(run, dtype, tokens):
    for heads in ((3, 3), (4, 1), (1, 3)):
        assert_agrees(run, call(2, tokens, heads, 64, dtype=dtype))


def test_every_schedule_gives_the_same_bits_without_a_race(run):
    assert_agrees(run, call(1, (3, 5), (3, 2), 64), schedules=SCHEDULES, races=True)
    assert_agrees(run, call(1, (1, 2), (1, 2), 72, "half"), schedules=SCHEDULES, races=True)


def test_streams_of_a_batch_that_is_itself_a_part(run):
    """The rows of an image are as far apart as those of both streams together."""
    q, k, v, *_ = rest = call(2, (9, 9), (2, 2), 64)
    halves = [(x[:, :4], x[:, 4:]) for x in (q, k, v)]
    first, second = zip(*halves, strict=True)
    args = *first, *second, *rest[6:10], rest[10][:9], rest[11][:9], *rest[12:]
    assert_agrees(run, args)


@pytest.mark.parametrize("backend", ["simt", "triton"])
@pytest.mark.parametrize("rope", ["interleaved", "half"])
def test_rows_of_a_wider_product_are_read_where_they_lie(backend, rope, monkeypatch):
    if joint_qkv_norm_rope.missing(backend):
        pytest.skip(f"no {backend} here")

    def refuse(tensor, *args, **options):
        assert tensor.dim() < 4 or tensor.is_contiguous(), "an operand was copied"
        return tensor

    args = call(2, (3, 5), (2, 2), 64, rope)
    q, k, cos, sin = args[0], args[1], args[10][:3], args[11][:3]
    wanted = joint_qkv_norm_rope.reference(*args), qk_norm_rope.reference(q, k, args[6], None, cos, sin, 1e-5, rope)
    monkeypatch.setattr(torch.Tensor, "contiguous", refuse)
    monkeypatch.setattr(torch.Tensor, "clone", refuse)
    with use_backend(backend):
        got = joint_qkv_norm_rope(*args), qk_norm_rope(q, k, args[6], None, cos, sin, 1e-5, rope)
    monkeypatch.undo()
    for first, second in zip((*got[0], *got[1]), (*wanted[0], *wanted[1]), strict=True):
        assert first.is_contiguous()
        assert_close("rows", first, second, "bfloat16")


def test_only_rows_that_cannot_be_read_in_vectors_are_copied():
    x = Inputs(torch.bfloat16).normal(2, 3, 6, 64)
    for view in (x, x[:, :, 2:4], x[:, 1:]):
        assert rows_of_heads(view) is view
    flat = Inputs(torch.bfloat16).normal(2 * 3 * 129)
    beside = flat.as_strided((2, 3, 2, 64), (3 * 129, 129, 64, 1))
    for view in (x[:, :, ::2], x.transpose(1, 2), x[..., :32], beside, flat[1:385].view(1, 3, 2, 64)):
        copy = rows_of_heads(view)
        assert copy.is_contiguous() and copy.data_ptr() % 16 == 0 and torch.equal(copy, view)


def test_an_empty_stream_is_refused_in_a_sentence(simt):
    args = call(1, (0, 2), (2, 2), 32)
    with use_backend("simt"), pytest.raises(NoBackendError, match=r"first_q must not be empty, got shape \[1, 0, 2, 32\]"):
        joint_qkv_norm_rope(*args)
