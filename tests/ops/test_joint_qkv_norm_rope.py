"""Two streams' queries, keys and values for one attention, against each stream by itself."""

import pytest
import torch

from halfbyte.ops import joint_qkv_norm_rope, qk_norm_rope
from halfbyte.testing import Inputs


def operands(dtype=torch.float32, batch=2, tokens=(3, 5), heads=(4, 2), width=8):
    inputs = Inputs(dtype)
    packed = heads[0], heads[1], heads[1]
    streams = [inputs.normal(batch, length, sum(packed), width).split(packed, 2) for length in tokens]
    angle = inputs.normal(sum(tokens), width // 2).float()
    return *streams[0], *streams[1], *(inputs.positive(width) for _ in range(4)), angle.cos(), angle.sin(), 1e-6


@pytest.mark.parametrize("rope", ["interleaved", "half"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_it_is_each_stream_normed_and_rotated_and_then_joined(dtype, rope):
    q1, k1, v1, q2, k2, v2, q1_weight, k1_weight, q2_weight, k2_weight, cos, sin, eps = args = operands(dtype)
    first = qk_norm_rope(q1, k1, q1_weight, k1_weight, cos[:3], sin[:3], eps, rope)
    second = qk_norm_rope(q2, k2, q2_weight, k2_weight, cos[3:], sin[3:], eps, rope)
    q, k, v = joint_qkv_norm_rope(*args, rope)
    assert torch.equal(q, torch.cat([first[0], second[0]], 1))
    assert torch.equal(k, torch.cat([first[1], second[1]], 1))
    assert torch.equal(v, torch.cat([v1, v2], 1))


@pytest.mark.parametrize(
    ("position", "shape", "sentence"),
    [
        (2, (2, 3, 4, 8), r"first_v: shape \[2, 3, 2, 8\] needed, got \[2, 3, 4, 8\]"),
        (3, (2, 5, 3, 8), r"second_q: shape \[2, 5, 4, 8\] needed, got \[2, 5, 3, 8\]"),
        (4, (2, 4, 2, 8), r"second_k: shape \[2, 5, 2, 8\] needed, got \[2, 4, 2, 8\]"),
        (7, (16,), r"first_k_weight: shape \[8\] needed, got \[16\]"),
        (10, (5, 4), r"cos: shape \[8, 4\] needed, got \[5, 4\]"),
    ],
)
def test_operands_that_do_not_fit_are_refused_in_a_sentence(position, shape, sentence):
    args = list(operands())
    args[position] = torch.ones(shape)
    with pytest.raises(ValueError, match=sentence):
        joint_qkv_norm_rope(*args, "half")


def test_both_streams_are_of_one_dtype():
    args = list(operands())
    args[5] = args[5].bfloat16()
    with pytest.raises(ValueError, match="second_v: dtype float32 needed, got bfloat16"):
        joint_qkv_norm_rope(*args, "half")
