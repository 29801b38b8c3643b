"""Stock LoRA calls on accelerated pipelines: load, set, fuse, unfuse and unload do what they do on the float pipeline."""

import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

import halfbyte
from halfbyte.layers import low_bit_layers
from halfbyte.models import find_denoisers
from halfbyte.testing.pipelines import output_of, tiny_pipeline

FAMILIES = ("flux", "wan", "qwenimage", "sd3", "zimage", "sdxl")
TARGETS = ["to_q", "to_k", "to_v"]
LIMIT = 1e-5


def save_adapter(name, folder):
    """A random adapter for the family, written by diffusers itself."""
    pipe, _ = tiny_pipeline(name)
    ((attribute, model),) = find_denoisers(pipe).items()
    torch.manual_seed(1)
    model.add_adapter(LoraConfig(r=4, lora_alpha=4, init_lora_weights=False, target_modules=TARGETS))
    type(pipe).save_lora_weights(folder, **{f"{attribute}_lora_layers": get_peft_model_state_dict(model)})


def distance(a, b):
    return float((a - b).abs().max())


@pytest.mark.parametrize("name", FAMILIES)
def test_lora_calls_with_float_activations(name, tmp_path, monkeypatch):
    # native numerics may measure INT8 as faster, before a fuse or after it
    monkeypatch.setenv("HALFBYTE_CPU_KIND", "float32")
    save_adapter(name, tmp_path)
    pipe, call = tiny_pipeline(name)
    fast = halfbyte.accelerate(pipe, "svdq_int4", progress=False)
    plain = output_of(fast, call)
    fast.load_lora_weights(tmp_path, adapter_name="style")
    loaded = output_of(fast, call)
    assert distance(plain, loaded) > 100 * LIMIT, "the adapter does nothing, so the test would show nothing"
    fast.set_adapters(["style"], [1.0])
    assert distance(output_of(fast, call), loaded) <= LIMIT
    fast.fuse_lora()
    assert distance(output_of(fast, call), loaded) <= LIMIT
    fast.unfuse_lora()
    assert distance(output_of(fast, call), loaded) <= LIMIT
    fast.unload_lora_weights()
    assert distance(output_of(fast, call), plain) <= LIMIT


@pytest.mark.parametrize("name", FAMILIES)
def test_fused_layers_with_quantized_activations_on_equal_input(name, tmp_path):
    save_adapter(name, tmp_path)
    pipe, _ = tiny_pipeline(name)
    fast = halfbyte.accelerate(pipe, "svdq_int4", numerics="w4a4", progress=False)
    ((_, model),) = find_denoisers(fast).items()
    fast.load_lora_weights(tmp_path, adapter_name="style")
    layers = {n: m for n, m in model.named_modules() if hasattr(m, "base_layer") and n.rpartition(".")[2] in TARGETS}
    inputs = {n: torch.randn(5, m.in_features, generator=torch.Generator().manual_seed(2)) for n, m in layers.items()}
    with torch.no_grad():
        before = {n: m(inputs[n]) for n, m in layers.items()}
        fast.fuse_lora()
        assert layers and low_bit_layers(model)
        for n, module in layers.items():
            assert distance(module(inputs[n]), before[n]) <= LIMIT * max(1.0, float(before[n].abs().max())), n
