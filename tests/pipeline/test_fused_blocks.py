"""FLUX through `accelerate`, its layers in the form of a GPU, which runs on the ops' references here."""

import pytest
import torch
from peft import LoraConfig

import halfbyte
from halfbyte.layers import prepared, weight
from halfbyte.layers.build_kernel_form import kernel_form
from halfbyte.testing import relative_rms
from halfbyte.testing.pipelines import output_of, tiny_pipeline


@pytest.fixture(autouse=True)
def gpu_forms(monkeypatch):
    def built(weight):
        activation = None if weight.layer_format.activation is None else "int8"
        return kernel_form(weight, activation, "pretended") if weight.numerics == "native" else prepared.build(weight)

    monkeypatch.setattr(weight, "build", built)


def accelerated(**options):
    pipe, call = tiny_pipeline("flux_embeds_only")
    fast = halfbyte.accelerate(pipe, "svdq_int4", progress=False, **options)
    return fast, {**call, "num_inference_steps": 4}


def blocks(fast):
    return [*fast.transformer.transformer_blocks, *fast.transformer.single_transformer_blocks]


def ran_fused(fast):
    (fused,) = fast.prepared.fused.values()
    return [forward.operands is not None for forward in fused.forwards.values()]


@pytest.mark.parametrize("cache", [None, "interval:2"])
@pytest.mark.parametrize("compile", [False, {"backend": "aot_eager"}], ids=["eager", "compiled"])
def test_images_are_those_of_unfused_blocks(cache, compile):
    torch.compiler.reset()
    plain, call = accelerated(cache=cache, fuse_blocks=False)
    want = output_of(plain, call)
    fast, _ = accelerated(cache=cache, compile=compile)
    got = output_of(fast, call)
    assert relative_rms(torch.as_tensor(got), torch.as_tensor(want)) < 2e-3
    assert len(ran_fused(fast)) == 4 and all(ran_fused(fast)) and set(fast.prepared.blocks.values()) == {None}
    assert plain.prepared.blocks == {}


def test_disable_takes_them_off():
    fast, call = accelerated(cache="interval:2")
    output_of(fast, call)
    with pytest.warns(UserWarning, match="the layers stay low-bit"):
        fast.disable()
    assert not any("forward" in vars(block) for block in blocks(fast))


def test_an_adapter_on_one_layer_leaves_only_its_block_unfused():
    fast, call = accelerated()
    output_of(fast, call)
    blocks(fast)[0].attn.to_q.weight.data += 0.01
    output_of(fast, call)
    assert ran_fused(fast) == [False, True, True, True]
    assert fast.prepared.blocks["transformer.transformer_blocks.0"] == "attn.to_q has an adapter fused into it"


def test_a_loaded_adapter_runs_in_unfused_blocks_and_leaves_nothing_behind():
    plain, call = accelerated(fuse_blocks=False)
    fast, _ = accelerated()
    before = output_of(fast, call)
    for pipe in (plain, fast):
        torch.manual_seed(1)
        pipe.transformer.add_adapter(LoraConfig(r=4, init_lora_weights=False, target_modules=["to_q"]))
    assert torch.equal(torch.as_tensor(output_of(fast, call)), torch.as_tensor(output_of(plain, call)))
    assert set(fast.prepared.blocks.values()) == {"attn.to_q is a peft.tuners.lora.layer.Linear, not a plain linear layer"}
    fast.transformer.unload_lora()
    assert torch.equal(torch.as_tensor(output_of(fast, call)), torch.as_tensor(before)) and all(ran_fused(fast))


def test_a_saved_pipeline_is_that_of_unfused_blocks(tmp_path):
    for name, options in {"plain": {"fuse_blocks": False}, "fused": {}}.items():
        fast, call = accelerated(**options)
        output_of(fast, call)
        fast.save_pretrained(tmp_path / name)
    files = {p.relative_to(tmp_path / "plain") for p in (tmp_path / "plain").rglob("*.safetensors")}
    assert files and all((tmp_path / "plain" / f).read_bytes() == (tmp_path / "fused" / f).read_bytes() for f in files)
