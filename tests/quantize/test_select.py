"""Roles, formats, reasons and byte counts, on the meta device."""

import pytest
import torch
from torch import nn

from halfbyte.formats import LayerFormat
from halfbyte.models.layer_roles import layer_sites
from halfbyte.quantize import RECIPES, Recipe, decide, get_recipe, model_bytes


@pytest.fixture(scope="module")
def flux():
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        return FluxTransformer2DModel().to(torch.bfloat16)


def unet(**changes):
    from diffusers import UNet2DConditionModel

    settings = dict(
        block_out_channels=(64, 128), layers_per_block=1, attention_head_dim=32, cross_attention_dim=64,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        use_linear_projection=True,
    )  # fmt: skip
    with torch.device("meta"):
        return UNet2DConditionModel(**settings | changes)


def dit(dtype=torch.float32, width=192):
    from diffusers import DiTTransformer2DModel

    with torch.device("meta"):
        model = DiTTransformer2DModel(
            num_attention_heads=width // 32, attention_head_dim=32, in_channels=4, out_channels=4, num_layers=2, sample_size=8
        )
    return model.to(dtype)


def roles(model):
    return {site.name: site.role for site in layer_sites(model)}


def test_flux_comes_to_less_than_0_30_of_bfloat16(flux):
    decisions = decide(flux, "svdq_int4")
    after, before = model_bytes(flux, decisions)
    assert before == 2 * sum(parameter.numel() for parameter in flux.parameters())
    assert after <= 0.30 * before
    owners, stored = set(), 0
    for decision in decisions:
        if decision.layer_format is None:
            stored += decision.float_bytes
        else:
            sizes = decision.shape[0], decision.shape[1]
            stored += decision.layer_format.stored_bytes(*sizes, owns_down=decision.input_group not in owners)
            owners.add(decision.input_group)
    assert stored == sum(decision.stored_bytes for decision in decisions)


def test_flux_roles(flux):
    found = roles(flux)
    assert found["transformer_blocks.7.norm1_context.linear"] == "adaln"
    assert found["transformer_blocks.7.attn.add_v_proj"] == "qkv"
    assert found["transformer_blocks.7.attn.to_add_out"] == "attention_out"
    assert found["transformer_blocks.7.ff_context.net.2"] == "ff_down_gelu"
    assert found["single_transformer_blocks.37.proj_out"] == "other"
    assert {found[name] for name in ("x_embedder", "context_embedder", "norm_out.linear", "proj_out")} == {"embed"}
    assert sum(role == "embed" for role in found.values()) == 8


def test_unet_keeps_embedders_shortcuts_resamplers_and_ends_float():
    found = roles(unet())
    floats = {name.split(".")[-1] if "samplers" not in name else "resampler" for name, role in found.items() if role == "embed"}
    ends = {"conv_in", "conv_out", "proj_in", "proj_out"}
    assert floats == ends | {"linear_1", "linear_2", "time_emb_proj", "conv_shortcut", "resampler"}
    assert {role for name, role in found.items() if name.endswith((".conv1", ".conv2"))} == {"conv3x3"}
    assert {role for name, role in found.items() if name.endswith("ff.net.2")} == {"ff_down"}, "GEGLU has no lower bound"


def test_cross_attention_shares_keys_and_values_only():
    groups = {site.name: site.input_group for site in layer_sites(unet())}
    stem = "down_blocks.0.attentions.0.transformer_blocks.0."
    assert groups[f"{stem}attn1.to_v"] == f"{stem}attn1.to_q"
    assert groups[f"{stem}attn2.to_q"] == f"{stem}attn2.to_q"
    assert groups[f"{stem}attn2.to_v"] == f"{stem}attn2.to_k"


def test_only_the_first_of_a_group_counts_the_shared_down_factor():
    decisions = {decision.name: decision for decision in decide(dit(), "svdq_int4")}
    query, key = (decisions[f"transformer_blocks.1.attn1.to_{leaf}"] for leaf in "qk")
    assert query.stored_bytes - key.stored_bytes == 192 * 32 * 2
    assert query.layer_format == key.layer_format == LayerFormat("int4", "int4", 32, True)


def test_layer_after_gelu_is_shifted_for_int4_only():
    name = "transformer_blocks.0.ff.net.2"
    shifts = {recipe: {d.name: d for d in decide(dit(), recipe)}[name].layer_format.act_shift for recipe in RECIPES}
    assert {recipe for recipe, shift in shifts.items() if shift} == {"svdq_int4"}
    assert shifts["svdq_int4"] == 0.171875


def test_adaln_is_w4a16_without_branch_and_smoothing():
    formats = {d.layer_format for d in decide(dit(), "svdq_nvfp4") if d.role == "adaln"}
    assert formats == {LayerFormat("int4", None)}


def test_rank_is_cut_for_small_layers_and_said_so():
    decisions = {d.name: d for d in decide(dit(torch.bfloat16, 96), "svdq_nvfp4")}
    layer = decisions["transformer_blocks.0.attn1.to_out.0"]
    assert layer.layer_format.rank == 24
    assert "rank 24 (cut from 32" in layer.reason


SMALL_MODELS = {
    "dit": lambda: dit(width=96),
    "unet": lambda: unet(block_out_channels=(96, 100), norm_num_groups=4, attention_head_dim=4),
}


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_what_does_not_fit_stays_float_with_a_reason(name):
    model = SMALL_MODELS[name]()
    for decision in decide(model, "svdq_int4"):
        if decision.layer_format is None:
            assert decision.stored_bytes == decision.float_bytes
            assert len(decision.reason.removeprefix("stays float: ")) > 10
        else:
            assert decision.stored_bytes < decision.float_bytes
    reasons = {d.reason for d in decide(model, "svdq_int4") if d.role == "qkv"}
    assert any("is not a multiple of" in reason for reason in reasons)


@pytest.mark.parametrize("pattern", ["transformer_blocks.0.attn1.to_q", "transformer_blocks.*.to_q"])
def test_including_a_layer_that_does_not_fit_is_an_error(pattern):
    with pytest.raises(ValueError, match=r"blocks.0.attn1.to_q cannot be stored as int4: in_features 96 is not a multiple"):
        decide(dit(width=96), "svdq_int4", include=[pattern])


def test_include_quantizes_a_layer_its_role_keeps_float():
    decisions = {d.name: d for d in decide(dit(), "svdq_int4", include=["proj_out_1"])}
    assert decisions["proj_out_1"].layer_format.weight == "int4"


def test_exclude_wins_and_a_pattern_must_match():
    decisions = decide(dit(), "svdq_int4", include=["*.to_q"], exclude=["transformer_blocks.0.*"])
    assert not [d for d in decisions if d.layer_format and d.name.startswith("transformer_blocks.0.")]
    with pytest.raises(ValueError, match="exclude: .* 'nothing.*' matches none"):
        decide(dit(), "svdq_int4", exclude=["nothing.*"])


def test_the_first_quantized_layer_owns_the_down_factor_when_others_are_excluded():
    decisions = {d.name: d for d in decide(dit(), "svdq_int4", exclude=["*.to_q"])}
    key, value = (decisions[f"transformer_blocks.0.attn1.to_{leaf}"] for leaf in "kv")
    assert key.stored_bytes > value.stored_bytes


def test_grouped_convolutions_stay_float():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.depthwise = nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1, groups=64)

    model = nn.Module()
    model.blocks = nn.ModuleList([Block()])
    by_name = {d.name: d for d in decide(model, "svdq_int4")}
    assert by_name["blocks.0.conv"].layer_format.rank == 16
    assert by_name["blocks.0.depthwise"].reason == "stays float: it is a convolution in 64 groups"


def test_recipes_are_refused_by_name():
    with pytest.raises(ValueError, match="recipe: one of svdq_int4, .* needed, got 'svd'"):
        get_recipe("svd")
    with pytest.raises(ValueError, match="only int4 activations are shifted, got nvfp4"):
        Recipe("mine", "nvfp4", "nvfp4", shift=True)
    with pytest.raises(ValueError, match="rows: 8 to max_rows"):
        Recipe("mine", "int4", "int4", rows=10**6)
