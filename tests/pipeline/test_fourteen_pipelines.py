"""Every tiny pipeline: accelerate, run, disable, save, load elsewhere; the float pipeline comes back bit for bit."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import halfbyte
from halfbyte.layers import low_bit_layers
from halfbyte.models import find_denoisers
from halfbyte.testing.pipelines import TINY_PIPELINES, output_of, tiny_pipeline

STEPS = 4
UNLOADABLE = {"flux_embeds_only", "flux2_embeds_only"}  # diffusers itself wants the missing text encoders when it loads


def accelerated(name, **options):
    pipe, call = tiny_pipeline(name)
    options = {"recipe": "svdq_int4", "cache": "interval:2", "numerics": "w4a4", "progress": False} | options
    return pipe, halfbyte.accelerate(pipe, **options), {**call, "num_inference_steps": STEPS}


@pytest.mark.parametrize("name", TINY_PIPELINES)
def test_accelerated_runs_and_disable_gives_the_float_pipeline_back(name):
    pipe, call = tiny_pipeline(name)
    call = {**call, "num_inference_steps": STEPS}
    before = output_of(pipe, call)
    fast = halfbyte.accelerate(pipe, "svdq_int4", cache="interval:2", numerics="w4a4", keep_base=True, progress=False)
    assert isinstance(fast, type(pipe)) and type(fast).__name__ == type(pipe).__name__ and type(pipe) is not type(fast)
    low = output_of(fast, call)
    assert low.shape == before.shape and torch.isfinite(low).all()
    assert not torch.equal(low, before)
    assert torch.equal(low, output_of(fast, call)), "two runs at one seed differ"
    assert any(low_bit_layers(model) for model in find_denoisers(fast).values())
    assert torch.equal(before, output_of(pipe, call)), "the user's object changed"
    fast.disable()
    assert torch.equal(before, output_of(fast, call))


@pytest.mark.parametrize("name", TINY_PIPELINES)
def test_a_cache_that_computes_every_step_changes_nothing(name):
    pipe, call = tiny_pipeline(name)
    call = {**call, "num_inference_steps": STEPS}
    before = output_of(pipe, call)
    fast = halfbyte.accelerate(pipe, recipe=None, cache="interval:1", progress=False)
    assert torch.equal(before, output_of(fast, call))
    assert torch.equal(before, output_of(pipe, call))


@pytest.mark.parametrize("name", TINY_PIPELINES)
def test_stored_bytes_are_the_plans_to_the_byte(name):
    _, fast, _ = accelerated(name)
    for denoiser, model in find_denoisers(fast).items():
        tensors = {id(t): t for module in low_bit_layers(model).values() for t in module.weight.storage.values()}
        assert sum(t.numel() * t.element_size() for t in tensors.values()) == fast.plan.stored_bytes[denoiser]


LOADER = """
import json, sys, torch
from safetensors.torch import save_file
import halfbyte
from halfbyte.testing.pipelines import output_of
torch.set_num_threads(1)
for name, (folder, call) in json.loads(sys.argv[1]).items():
    pipe = halfbyte.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    save_file({"output": output_of(pipe, call).contiguous()}, folder + "/output.safetensors")
"""


def test_save_and_load_in_a_fresh_process_gives_the_same_bits(tmp_path):
    expected, jobs = {}, {}
    for name in TINY_PIPELINES.keys() - UNLOADABLE:
        _, fast, call = accelerated(name)
        expected[name] = output_of(fast, call)
        fast.save_pretrained(tmp_path / name)
        jobs[name] = (str(tmp_path / name), call)
    subprocess.run([sys.executable, "-c", LOADER, json.dumps(jobs)], check=True)
    for name, output in expected.items():
        assert torch.equal(output, load_file(tmp_path / name / "output.safetensors")["output"]), name
