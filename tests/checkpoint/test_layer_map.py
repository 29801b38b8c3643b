import json

import pytest
from torch import nn

from halfbyte.checkpoint import CheckpointError, LayerMap, layer_names
from halfbyte.formats import LayerFormat

INT4 = LayerFormat("int4", "int4", rank=4, smooth=True)
W4A16 = LayerFormat("int4", None)


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width), nn.Dropout()])


class Block(nn.Module):
    def __init__(self, width, attention="attn"):
        super().__init__()
        self.add_module(attention, Attention(width))
        self.ff = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


def stacked(width=64, double=3, single=2):
    model = nn.Module()
    model.transformer_blocks = nn.ModuleList(Block(width) for _ in range(double))
    model.single_transformer_blocks = nn.ModuleList(Block(width) for _ in range(single))
    model.proj_out = nn.Linear(width, 3)
    return model


def map_of(model):
    return LayerMap.of(dict(model.named_parameters()))


def test_shared_factors_are_found_through_detached_copies_too(tools):
    model = tools.low_bit(stacked(), INT4)
    from_parameters, from_state = map_of(model), LayerMap.of(model.state_dict())
    assert from_parameters == from_state
    assert from_parameters.down_owner["transformer_blocks.1.attn.to_v"] == "transformer_blocks.1.attn.to_q"
    assert len(from_parameters.down_owner) == 2 * 5 and "proj_out" not in from_parameters.formats


def test_json_round_trip_and_size(tools):
    model = tools.low_bit(stacked(double=19, single=38), INT4)
    layer_map, names = map_of(model), layer_names(model)
    values = json.loads(json.dumps(layer_map.to_dict(names), sort_keys=True))
    assert LayerMap.from_dict(values, names) == layer_map
    assert len(values["layers"]["int4_r4"]) == 10 and len(json.dumps(values)) < 1500


def test_mixed_formats_and_gaps(tools):
    model = stacked(double=5)
    names = layer_names(model)
    tools.low_bit(model, W4A16, names=[x for x in names if ".ff." in x])
    tools.low_bit(model, INT4, names=[x for x in names if ".attn." in x and not x.startswith("transformer_blocks.2.")])
    layer_map = map_of(model)
    values = layer_map.to_dict(names)
    assert LayerMap.from_dict(values, names) == layer_map
    assert "transformer_blocks.{0-1,3-4}.attn.to_q" in values["layers"]["int4_r4"]
    assert values["shared_down"]["transformer_blocks.{0-1,3-4}.attn.to_q"][0] == "transformer_blocks.*.attn.to_k"


def test_one_pair_that_shares_across_blocks_is_named_in_full(tools):
    from halfbyte.layers import LowBitWeight, install, share_down

    model = tools.low_bit(stacked(), INT4, share=False)
    owner, member = model.transformer_blocks[0].attn.to_q, model.transformer_blocks[2].attn.to_k
    factors = {"proj_down": owner.weight.proj_down, "proj_up": member.weight.proj_up, "smooth_factor": owner.weight.smooth_factor}
    install(member, LowBitWeight.from_float(nn.Linear(64, 64).weight, INT4, **factors))
    share_down([owner.weight, member.weight])
    layer_map, names = map_of(model), layer_names(model)
    values = layer_map.to_dict(names)
    assert values["shared_down"] == {"transformer_blocks.0.attn.to_q": ["transformer_blocks.2.attn.to_k"]}
    assert LayerMap.from_dict(values, names) == layer_map


def test_sharing_is_seen_on_the_meta_device(tools):
    model = tools.low_bit(stacked(), INT4).to("meta")
    assert len(map_of(model).down_owner) == 2 * 5


def edited(values, **changes):
    return {**json.loads(json.dumps(values)), **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"formats": {"int4_r4": {"weight": "int4"}}}, "formats.int4_r4: activation"),
        ({"formats": {"int4_r4": {"weight": "int4", "activation": None, "run": 1}}}, "formats.int4_r4: run"),
        ({"formats": {"int4_r4": "int4"}}, "formats.int4_r4"),
        ({"layers": {"nf4": ["proj_out"]}}, "layers.nf4: one of the formats int4_r4"),
        ({"layers": {"int4_r4": ["blocks.*.attn.to_q"]}}, "'blocks.*.attn.to_q' must match"),
        ({"layers": {"int4_r4": ["transformer_blocks.{0-9.attn.to_q"]}}, "a set like"),
        ({"layers": {"int4_r4": ["proj_out", "proj_out"]}}, "layer proj_out needs one format"),
        ({"shared_down": {"proj_out": ["transformer_blocks.0.attn.to_q"]}}, "layer proj_out must have a low-rank branch"),
        ({"shared_down": {"transformer_blocks.*.attn.to_q": ["transformer_blocks.0.attn.to_k"]}}, "0 wildcards"),
        ({"shared_down": {"transformer_blocks.0.attn.to_q": ["transformer_blocks.0.attn.to_q"]}}, "one owner"),
        (
            {"shared_down": {
                "transformer_blocks.0.attn.to_q": ["transformer_blocks.0.attn.to_k"],
                "transformer_blocks.0.attn.to_k": ["transformer_blocks.0.attn.to_v"],
            }},
            "one owner",
        ),
    ],
    ids=["missing-field", "unknown-field", "no-object", "unknown-label", "no-match", "bad-set", "twice", "not-low-bit",
         "wildcards", "self", "chain"],
)  # fmt: skip
def test_what_does_not_fit_is_named(tools, changes, message):
    model = tools.low_bit(stacked(), INT4)
    names = layer_names(model)
    values = map_of(model).to_dict(names)
    with pytest.raises(CheckpointError, match=message.replace("*", r"\*")):
        LayerMap.from_dict(edited(values, **changes), names)


def test_ranks_of_a_group_must_agree(tools):
    model = tools.low_bit(stacked(), INT4)
    names = layer_names(model)
    values = map_of(model).to_dict(names)
    values["formats"]["other"] = {**values["formats"]["int4_r4"], "rank": 8}
    values["layers"]["other"] = ["transformer_blocks.*.attn.to_k"]
    values["layers"]["int4_r4"].remove("transformer_blocks.*.attn.to_k")
    with pytest.raises(CheckpointError, match="need one rank, got 8 and 4"):
        LayerMap.from_dict(values, names)


def test_a_float_model_has_an_empty_map():
    assert map_of(stacked()) == LayerMap({}, {})
