"""A fused block computes what the block computes with the same low-bit layers."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.utils._pytree import tree_map_only

from halfbyte.layers import weight
from halfbyte.layers.build_kernel_form import kernel_form
from halfbyte.models.fused import fuse_blocks
from halfbyte.models.fused.single_stream import Apart, Joined
from halfbyte.testing import relative_rms

from .conftest import DIM, STACKS

# (stored weight, what a GPU multiplies in)
FORMATS = [("int4", "int8"), ("int4", "int4"), ("nvfp4", "nvfp4"), ("nvfp4", "int8"), ("int8", "int8"), ("fp8", "fp8")]
FORMAT_IDS = ["-".join(pair) for pair in FORMATS]

# Relative RMS error of what the block adds to its streams. In float32 only a code that sits on a tie moves; 16-bit activations
# put many there, and every layer passes that on. For comparison, rounding activations at all makes an error of 0.25 (int4),
# 0.16 (nvfp4), 0.04 (fp8) and 0.02 (int8) on these blocks. proj_out of a single-stream block gives its two inputs scales of
# their own where codes were folded.
LIMITS = {
    torch.float32: {"int4": 0.02, "nvfp4": 0.02, "fp8": 0.02, "int8": 0.012},
    torch.bfloat16: {"int4": 0.2, "nvfp4": 0.18, "fp8": 0.06, "int8": 0.025},
    torch.float16: {"int4": 0.15, "nvfp4": 0.12, "fp8": 0.045, "int8": 0.02},
}


def changes(block, arguments):
    """What the block adds to text and image, float32."""
    with torch.no_grad():
        text, image = block(**arguments)
    return text.float() - arguments["encoder_hidden_states"].float(), image.float() - arguments["hidden_states"].float()


def worst(got, want):
    return max(relative_rms(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("rank", [0, 8])
@pytest.mark.parametrize("dtype", LIMITS, ids=["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("stored", "multiplied"), FORMATS, ids=FORMAT_IDS)
@pytest.mark.parametrize("stack", STACKS)
def test_a_fused_block_equals_the_block(make_flux, pretend_gpu, arguments, stack, stored, multiplied, dtype, rank):
    pretend_gpu(multiplied)
    model = make_flux(dtype, weight=stored, activation=stored, rank=rank)
    unfused = copy.deepcopy(model)
    assert set(fuse_blocks(model).reasons.values()) == {None}
    given = arguments(dtype)
    error = worst(changes(getattr(model, stack)[0], given), changes(getattr(unfused, stack)[0], given))
    assert error < LIMITS[dtype][multiplied]


@pytest.mark.parametrize("rank", [0, 8])
@pytest.mark.parametrize(("stored", "multiplied"), FORMATS, ids=FORMAT_IDS)
@pytest.mark.parametrize("stack", STACKS)
def test_it_is_no_further_from_float_activations(make_flux, pretend_gpu, in_float, arguments, stack, stored, multiplied, rank):
    pretend_gpu(multiplied)
    model = make_flux(weight=stored, activation=stored, rank=rank)
    exact, unfused = in_float(model), copy.deepcopy(model)
    fuse_blocks(model)
    given = arguments()
    want = changes(getattr(exact, stack)[0], tree_map_only(torch.Tensor, torch.Tensor.float, given))
    fused, unfused = (worst(changes(getattr(each, stack)[0], given), want) for each in (model, unfused))
    assert fused < 1.05 * unfused


@pytest.mark.parametrize("stack", STACKS)
def test_one_image_and_a_shared_modulation(make_flux, pretend_gpu, arguments, stack):
    pretend_gpu()
    model = make_flux(torch.float32)
    unfused = copy.deepcopy(model)
    fuse_blocks(model)
    given = arguments(torch.float32, batch=1)
    error = worst(changes(getattr(model, stack)[0], given), changes(getattr(unfused, stack)[0], given))
    assert error < LIMITS[torch.float32]["int8"]


def test_layers_with_other_smoothing_are_quantized_apart(make_flux, pretend_gpu):
    pretend_gpu()
    fused = fuse_blocks(make_flux())
    fused.reasons
    double, single = (forward.operands for forward in fused.forwards.values())
    named = [[[name for name, _ in layers] for layers, _ in group.products] for group in single.groups]
    assert named == [[["to_q", "to_k", "to_v"]], [["proj_mlp"]]]
    assert [len(stream.qkv) for stream in (double.image, double.text)] == [1, 1]
    assert double.image.qkv[0].input.proj_down is None or double.image.qkv[0].input.proj_down.shape[1] == 8


def test_without_smoothing_one_input_serves_all(make_flux, pretend_gpu):
    pretend_gpu()
    fused = fuse_blocks(make_flux(rank=0, smooth=False))
    fused.reasons
    (group,) = list(fused.forwards.values())[1].operands.groups
    assert [[name for name, _ in layers] for layers, _ in group.products] == [["to_q", "to_k", "to_v"], ["proj_mlp"]]


@pytest.mark.parametrize(("multiplied", "kind", "products"), [("int8", Apart, 2), ("int4", Joined, 4)])
def test_only_derived_codes_are_laid_out_anew(make_flux, pretend_gpu, multiplied, kind, products):
    pretend_gpu(multiplied)
    model = make_flux(rank=0, smooth=False)
    block = model.single_transformer_blocks[0]
    stored = block.attn.to_q.weight.qweight
    fused = fuse_blocks(model)
    fused.reasons
    operands = fused.forwards["single_transformer_blocks.0"].operands
    assert isinstance(operands.out, kind) and len(operands.groups[0].products) == products
    if kind is Joined:
        assert operands.groups[0].products[0][1].qweight is stored
    else:
        assert block.attn.to_q.weight.state.prepared is None


@pytest.mark.parametrize("derived", [False, True], ids=["stored", "derived"])
@pytest.mark.parametrize("multiplied", ["int4", "int8", "fp8"])
def test_different_down_factors_on_one_input(make_flux, arguments, monkeypatch, multiplied, derived):
    """Ranks side by side, each product reading its own; one layer has none."""

    def built(weight):
        form = kernel_form(weight, multiplied, "pretended")
        seed, (n, k) = int(form.qweight.view(torch.int8).sum()), form.shape
        if derived and multiplied != "int4":
            form = replace(form, qweight=form.qweight.clone())
        if seed % 3 == 0:
            return form
        generator = torch.Generator().manual_seed(seed)
        down, up = (torch.randn(size, 8, generator=generator) * size**-0.5 for size in (k, n))
        return replace(form, proj_down=down, proj_up=up)

    monkeypatch.setattr(weight, "build", built)
    model = make_flux(torch.float32, weight=multiplied, activation=multiplied, smooth=False, rank=0)
    unfused = copy.deepcopy(model)
    fused = fuse_blocks(model)
    assert set(fused.reasons.values()) == {None}
    groups = [group for forward in fused.forwards.values() for group in groups_of(forward.operands)]
    assert any(group.input.proj_down is not None and group.input.proj_down.shape[1] > 8 for group in groups)
    assert all(product.proj_up.shape[1] == group.input.proj_down.shape[1] for group in groups for _, product in group.products)
    given = arguments(torch.float32)
    for stack in STACKS:
        error = worst(changes(getattr(model, stack)[0], given), changes(getattr(unfused, stack)[0], given))
        assert error < LIMITS[torch.float32][multiplied]


def groups_of(operands):
    return operands.groups if hasattr(operands, "groups") else (*operands.image.qkv, *operands.text.qkv)


@pytest.mark.parametrize("stack", STACKS)
def test_float16_overflow_is_clipped(make_flux, pretend_gpu, arguments, stack):
    pretend_gpu()
    model = make_flux(torch.float16)
    block = getattr(model, stack)[0]
    adaln = block.norm1_context if stack == STACKS[0] else block.norm
    adaln.linear.bias.data[-DIM:] = 6e4  # the gate behind the last product
    unfused = copy.deepcopy(block)
    assert set(fuse_blocks(model).reasons.values()) == {None}
    given = arguments(torch.float16)
    with torch.no_grad():
        (text, _), (want, _) = block(**given), unfused(**given)
    assert text.isfinite().all() and text.max() == -text.min() == want.max() == 65504
