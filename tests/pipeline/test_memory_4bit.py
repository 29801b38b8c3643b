"""A pipeline that keeps 4-bit storage alone: the same image class, saved and given back like any other."""

import pytest
import torch

import halfbyte
from halfbyte.layers import low_bit_layers
from halfbyte.models import find_denoisers
from halfbyte.testing.pipelines import output_of, tiny_pipeline

FAMILIES = ("flux", "sdxl")
CALL = {"num_inference_steps": 3}


def kinds(pipe):
    return {kind for report in pipe.prepared.reports.values() for kind in report.kinds}


@pytest.mark.parametrize("name", FAMILIES)
def test_it_runs_saves_and_gives_the_float_pipeline_back(name, tmp_path, monkeypatch):
    pipe, call = tiny_pipeline(name)
    call |= CALL
    before = output_of(pipe, call)
    fast = halfbyte.accelerate(pipe, "svdq_int4", memory="4bit", keep_base=True, progress=False)
    assert kinds(fast) <= {"streamed int8", "streamed float32"} and "streamed int8" in kinds(fast)
    stored = sum(fast.plan.stored_bytes.values())
    assert 0 < fast.prepared.workspace_bytes and fast.prepared.prepared_bytes < stored / 3
    low = output_of(fast, call)
    assert torch.isfinite(low).all() and torch.equal(low, output_of(fast, call))
    fast.save_pretrained(tmp_path)
    again = halfbyte.from_pretrained(tmp_path, memory="4bit")
    assert kinds(again) == kinds(fast) and torch.equal(output_of(again, call), low)
    monkeypatch.setenv("HALFBYTE_CPU_KIND", "float32")
    large = halfbyte.from_pretrained(tmp_path)
    layers = [layer for model in find_denoisers(large).values() for layer in low_bit_layers(model).values()]
    assert layers and all(layer.weight.memory == "fast" for layer in layers)
    fast.disable()
    assert torch.equal(before, output_of(fast, call))


def test_a_mistake_is_found_before_a_weight_is_touched():
    pipe, _ = tiny_pipeline("flux")
    with pytest.raises(ValueError, match="memory: 'fast' needed with numerics w4a4"):
        halfbyte.accelerate(pipe, "rtn_int4", numerics="w4a4", memory="4bit", progress=False)
    assert not any(low_bit_layers(model) for model in find_denoisers(pipe).values())
