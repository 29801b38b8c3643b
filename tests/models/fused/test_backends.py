"""Fused blocks on the ops' other backends, with the shapes and strides that blocks hand to them."""

import pytest
import torch

from halfbyte.models.fused import fuse_blocks, handover
from halfbyte.models.fused.handover import is_fast
from halfbyte.ops import OPS, backends, use_backend
from halfbyte.testing import relative_rms

from .conftest import STACKS
from .test_equality import LIMITS, changes

OPS_OF_A_BLOCK = {"norm_quantize", "quantize_act", "qk_norm_rope", "joint_qkv_norm_rope"}
PRODUCTS = {"int8": "gemm_w8a8", "int4": "gemm_w4a4", "nvfp4": "gemm_nvfp4"}


def present(backend, multiplied):
    product = PRODUCTS[multiplied]
    return OPS_OF_A_BLOCK | {product, f"{product}_act", f"{product}_gate_residual"} <= set(backends()[backend])


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("multiplied", PRODUCTS)
@pytest.mark.parametrize("backend", ["simt", "triton"])
def test_a_block_on_another_backend(make_flux, pretend_gpu, arguments, monkeypatch, backend, multiplied, stack):
    if not present(backend, multiplied):
        pytest.skip(f"{backend} has no {PRODUCTS[multiplied]} here")
    monkeypatch.setitem(OPS["attention"].targets, backend, OPS["attention"].reference)
    monkeypatch.setitem(OPS["attention"].rejects, backend, lambda *_: None)
    OPS["attention"]._missing.pop(backend, None)
    pretend_gpu(multiplied)
    stored = "nvfp4" if multiplied == "nvfp4" else "int4"
    model = make_flux(weight=stored, activation=stored)
    block, given = getattr(model, stack)[0], arguments()
    assert set(fuse_blocks(model).reasons.values()) == {None}
    want = changes(block, given)
    with use_backend(backend):
        got = changes(block, given)
    for a, b in zip(got, want, strict=True):
        assert relative_rms(a, b) < LIMITS[torch.bfloat16][multiplied]


def test_a_product_is_quantized_for_the_next_layer_in_one_op_where_a_fast_backend_has_it(monkeypatch):
    op = OPS["gemm_w8a8_act_quantize"]
    assert is_fast(op, torch.device("cpu"), ())
    monkeypatch.setitem(op.targets, "cpu", lambda *_: None)
    monkeypatch.setitem(op.rejects, "cpu", lambda *_: "too wide")
    assert not is_fast(op, torch.device("cpu"), ())
    monkeypatch.setitem(op.rejects, "cpu", lambda *_: None)
    assert is_fast(op, torch.device("cpu"), ())


@pytest.mark.parametrize("multiplied", PRODUCTS)
def test_both_ways_of_handing_over_give_the_same_codes(make_flux, pretend_gpu, arguments, monkeypatch, multiplied):
    pretend_gpu(multiplied)
    stored = "nvfp4" if multiplied == "nvfp4" else "int4"
    model, given = make_flux(weight=stored, activation=stored), arguments()
    found = []
    for fast in (True, False):
        monkeypatch.setattr(handover, "is_fast", lambda *_, fast=fast: fast)
        blocks = fuse_blocks(model)
        forward = blocks.forwards["transformer_blocks.0"]
        assert forward.reason() is None and forward.operands.image.ff.in_one_op is forward.operands.text.ff.in_one_op is fast
        found.append(changes(model.transformer_blocks[0], given))
        blocks.undo()
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_a_backend_asked_for_later_is_asked_again_without_building_anew(make_flux, pretend_gpu):
    pretend_gpu()
    forward = fuse_blocks(make_flux()).forwards["transformer_blocks.0"]
    assert forward.reason() is None and forward.operands.image.ff.in_one_op
    before = forward.operands
    with use_backend("cpu"):  # which has other ops, but not this one
        there = forward.operands.image.ff
        assert forward.reason() is None and not there.in_one_op and there.product is before.image.ff.product
    assert forward.operands is before
