"""What a fused block launches between its products, and what it moves."""

import pytest
import torch

from halfbyte.models.fused import fuse_blocks
from halfbyte.testing import Traffic

from .conftest import DIM, IMAGES, STACKS, TEXTS, made_in_tiles

TOKENS = TEXTS + IMAGES
ROWS = {TEXTS, IMAGES, TOKENS}
# cos and sin of every second column.
ROTARY = ["clone", "clone"]
STREAM = ["norm_quantize", "gemm_w8a8"]
FEED_FORWARD = ["quantize_act", "gemm_w8a8_gate_residual", "norm_quantize", "gemm_w8a8_act_quantize", "gemm_w8a8_gate_residual"]
DOUBLE = [*STREAM, *STREAM, *ROTARY, "joint_qkv_norm_rope", "attention", *FEED_FORWARD, *FEED_FORWARD]
LAST = ["quantize_act", "gemm_w8a8_gate_residual", "gemm_w8a8_gate_residual"]
UP = [*STREAM, "gemm_w8a8_act_quantize"]
SINGLE = ["cat", *UP, *ROTARY, "qk_norm_rope", "attention", *LAST]


def traffic_of(model, stack, given):
    block = getattr(model, stack)[0]
    with torch.no_grad():
        block(**given)
        with Traffic() as traffic:
            block(**given)
    return [operation for operation in traffic.operations if operation.bytes_of(ROWS)]


@pytest.mark.parametrize(("stack", "wanted"), zip(STACKS, (DOUBLE, SINGLE), strict=True), ids=STACKS)
def test_nothing_runs_between_the_ops_of_a_block(make_flux, pretend_gpu, arguments, stand_in, stack, wanted):
    pretend_gpu("int8")
    stand_in(made_in_tiles)
    model = make_flux(rank=0, smooth=False)
    fuse_blocks(model)
    assert [operation.name for operation in traffic_of(model, stack, arguments(batch=1))] == wanted


def test_the_codes_of_stored_products_are_joined_in_place_of_their_activations(make_flux, pretend_gpu, arguments):
    pretend_gpu("int4")
    model = make_flux(rank=0, smooth=False)
    fuse_blocks(model)
    operations = traffic_of(model, STACKS[1], arguments(batch=1))
    assert [operation.name for operation in operations][-4:] == ["attention", "quantize_act", "cat", "gemm_w4a4_gate_residual"]
    assert operations[-2].bytes_of(ROWS) == 2 * TOKENS * 5 * DIM // 2


def test_the_feed_forward_moves_a_byte_for_each_activation(make_flux, pretend_gpu, arguments, stand_in):
    """Its codes and scales, in place of 16-bit activations that are written and read and then codes."""
    pretend_gpu("int8")
    stand_in(made_in_tiles)
    model = make_flux(rank=0, smooth=False)
    fuse_blocks(model)
    (made,) = (each for each in traffic_of(model, STACKS[1], arguments(batch=1)) if each.name == UP[-1])
    (codes, _), (scales, _), _ = made.outputs
    assert codes == (TOKENS, 4 * DIM) and scales == (4 * DIM // 256, TOKENS + -TOKENS % 8)
    assert made.bytes_of({TOKENS}) == TOKENS * (DIM + 4 * DIM)
