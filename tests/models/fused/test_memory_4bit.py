"""Fused blocks whose layers keep their 4-bit storage alone."""

import copy

import pytest
import torch

from halfbyte.layers import low_bit_layers, prepare
from halfbyte.models.fused import fuse_blocks

from .conftest import STACKS
from .test_equality import LIMITS, changes, worst


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("stored", "multiplied"), [("int4", "int8"), ("nvfp4", "int8"), ("nvfp4", "fp8")])
@pytest.mark.parametrize("stack", STACKS)
def test_a_fused_block_equals_the_block(make_flux, pretend_gpu, arguments, stack, stored, multiplied, dtype):
    pretend_gpu(multiplied)
    model = make_flux(dtype, weight=stored, activation=stored)
    prepare(model, memory="4bit")
    unfused, given = copy.deepcopy(model), arguments(dtype)
    assert set(fuse_blocks(model).reasons.values()) == {None}
    error = worst(changes(getattr(model, stack)[0], given), changes(getattr(unfused, stack)[0], given))
    assert error < LIMITS[dtype][multiplied]


def test_nothing_is_kept_beside_the_storage(make_flux, pretend_gpu, arguments):
    pretend_gpu()
    model = make_flux()
    blocks = fuse_blocks(model)
    assert set(blocks.reasons.values()) == {None}
    prepare(model, memory="4bit")
    assert not any(forward.operands for forward in blocks.forwards.values()) and set(blocks.reasons.values()) == {None}
    stored = {id(tensor) for layer in low_bit_layers(model).values() for tensor in layer.weight.storage.values()}
    double, single = (forward.operands for forward in blocks.forwards.values())
    groups = (*double.image.qkv, *double.text.qkv, *single.groups)
    products = [product for group in groups for _, product in group.products]
    products += [product for side in (double.image, double.text) for product in (side.out, side.ff.product, side.ff_out)]
    products.append(single.out.product)
    assert len(products) == 6 + 4 + 6 + 1 and all(id(product.qweight) in stored for product in products)
