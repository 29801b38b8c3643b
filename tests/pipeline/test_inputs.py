"""A user's mistake is one sentence that names what came and what was needed."""

import json

import pytest
import torch

import halfbyte
from halfbyte.plan import Plan
from halfbyte.testing.pipelines import output_of, tiny_pipeline


@pytest.mark.parametrize("cache", ["interval", "interval:x", "sometimes", 0, 1.5, object()], ids=["no-value", "no-number", "no-form", "zero", "above-one", "object"])
def test_a_cache_of_no_known_form(cache):
    pipe, _ = tiny_pipeline("dit")
    with pytest.raises(ValueError, match="cache"):
        halfbyte.accelerate(pipe, recipe=None, cache=cache)


def test_a_recipe_of_no_known_name():
    pipe, _ = tiny_pipeline("dit")
    with pytest.raises(ValueError, match="svdq_int4.*'w3a3'"):
        halfbyte.accelerate(pipe, "w3a3")


def test_a_named_layer_that_does_not_fit():
    pipe, _ = tiny_pipeline("pixart")
    with pytest.raises(ValueError, match="caption_projection.linear_1.*32.*64"):
        halfbyte.accelerate(pipe, include=["caption_projection.linear_1"], progress=False)


@pytest.mark.parametrize("numerics", ["nvfp4", "w3a3"])
def test_numerics_the_recipe_cannot_compute_touch_no_weight(numerics):
    pipe, call = tiny_pipeline("dit")
    before = output_of(pipe, call)
    with pytest.raises(ValueError, match=f"numerics.*{numerics}"):
        halfbyte.accelerate(pipe, "rtn_int4", numerics=numerics, progress=False)
    assert torch.equal(output_of(pipe, call), before)


def test_accelerating_twice():
    pipe, _ = tiny_pipeline("dit")
    fast = halfbyte.accelerate(pipe, recipe=None)
    with pytest.raises(ValueError, match="already"):
        halfbyte.accelerate(fast)


def test_a_plan_for_another_model():
    plan = halfbyte.accelerate(tiny_pipeline("dit")[0], "rtn_int4", progress=False).plan
    with pytest.raises(ValueError, match="PixArtTransformer2DModel"):
        halfbyte.accelerate(tiny_pipeline("pixart")[0], plan=plan)


def test_a_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(ValueError, match="model_index.json"):
        halfbyte.from_pretrained(tmp_path)


MUTATIONS = {
    "version": lambda data: data.update(version=99),
    "num_inference_steps": lambda data: data.update(num_inference_steps=-1),
    "numerics": lambda data: data.update(numerics=4),
    "models.transformer": lambda data: data["models"]["transformer"].pop("shapes"),
    "storage.transformer": lambda data: data["storage"].update(transformer={}),
    "format": lambda data: data["storage"]["transformer"][0]["format"].update(weight="int3"),
    "rank": lambda data: data["storage"]["transformer"][0]["format"].update(rank=-1),
    "layers": lambda data: data["storage"]["transformer"][0].update(layers=[3]),
    "stored_bytes.transformer": lambda data: data["stored_bytes"].update(transformer="many"),
    "cache": lambda data: data.update(cache={"policy": "wish"}),
    "unknown": lambda data: data.update(colour="blue"),
}


@pytest.mark.parametrize("field", MUTATIONS)
def test_a_malformed_plan_names_its_field(field, tmp_path):
    plan = halfbyte.accelerate(tiny_pipeline("dit")[0], "rtn_int4", cache="interval:2", progress=False).plan
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    data = plan.to_dict()
    MUTATIONS[field](data)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=field.split(".")[-1]) as caught:
        Plan.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00\x01"], ids=repr)
def test_a_file_that_is_no_plan(text, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="plan"):
        Plan.load(path)


def test_a_plan_made_with_a_recipe_of_ones_own_runs_on_the_float_model():
    mine = halfbyte.Recipe("mine", "int4", "int8", rank=8)
    plan = halfbyte.accelerate(tiny_pipeline("dit")[0], mine, progress=False).plan
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    fast = halfbyte.accelerate(tiny_pipeline("dit")[0], plan=again, progress=False)
    assert fast.plan.storage == plan.storage
    assert {decision.layer_format for decision in fast.decisions["transformer"]} >= set(plan.storage["transformer"].values())
