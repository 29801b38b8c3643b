import pytest
import torch

from halfbyte.ops import attention, qk_norm_rope
from halfbyte.testing import assert_close


@pytest.mark.parametrize("rope", ["interleaved", "half"])
@pytest.mark.parametrize("across", [False, True], ids=["per-head", "all-heads"])
def test_qk_norm_rope_is_rms_norm_and_a_complex_rotation(rope, across):
    q, k, angle = torch.randn(2, 5, 3, 8), torch.randn(2, 5, 3, 8), torch.randn(5, 4)
    q_weight, k_weight = torch.rand(2, 24 if across else 8).unbind()

    def want(x, weight):
        shape = (24,) if across else (8,)
        x = torch.nn.functional.rms_norm(x.double().reshape(2, 5, -1, *shape), shape, weight.double(), 1e-6).reshape(x.shape)
        pairs = x.unflatten(-1, (4, 2)) if rope == "interleaved" else x.unflatten(-1, (2, 4)).transpose(-1, -2)
        turned = torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones(()).double(), angle.double()).unsqueeze(1)
        pairs = torch.view_as_real(turned)
        return (pairs if rope == "interleaved" else pairs.transpose(-1, -2)).flatten(-2)

    got = qk_norm_rope(q, k, q_weight, k_weight, angle.cos(), angle.sin(), 1e-6, rope)
    assert_close("q", got[0], want(q, q_weight), "float32")
    assert_close("k", got[1], want(k, k_weight), "float32")


def test_without_weights_nothing_is_normalized():
    q = torch.randn(1, 3, 2, 4)
    still = torch.ones(3, 2), torch.zeros(3, 2)
    assert torch.equal(qk_norm_rope(q, 2 * q, None, None, *still, 1e-6, "half")[1], 2 * q)


def test_rope_tables_must_cover_every_token():
    q, table = torch.ones(1, 3, 2, 4), torch.ones(2, 2)
    with pytest.raises(ValueError, match=r"cos: shape \[3, 2\] needed, got \[2, 2\]"):
        qk_norm_rope(q, q, None, None, table, table, 1e-6, "half")


@pytest.mark.parametrize("key_heads", [4, 2], ids=["all-heads", "grouped"])
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_attention_is_a_softmax_average(key_heads, masked):
    q, k, v = torch.randn(2, 7, 4, 8), torch.randn(2, 5, key_heads, 8), torch.randn(2, 5, key_heads, 6)
    mask = torch.rand(2, 1, 7, 5) > 0.3 if masked else None
    if masked:
        mask[..., 0] = True
    wide_k, wide_v = (x.double().repeat_interleave(4 // key_heads, 2) for x in (k, v))
    scores = torch.einsum("bthd,bshd->bhts", q.double(), wide_k) * 0.5
    scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
    want = torch.einsum("bhts,bshd->bthd", scores.softmax(-1), wide_v)
    assert_close("out", attention(q, k, v, mask, scale=0.5), want, "float32")


def test_attention_refuses_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="k: a number of heads that divides the 4 of q needed, got 3"):
        attention(torch.ones(1, 2, 4, 8), torch.ones(1, 2, 3, 8), torch.ones(1, 2, 3, 8), None)
