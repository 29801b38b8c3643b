"""What a 12 B model takes on a GPU that folds its 4-bit weights: FLUX.1-dev's own shapes, without a byte of weights."""

import functools

import pytest
import torch
from diffusers import FluxTransformer2DModel

from halfbyte.layers import LowBitWeight, build_kernel_form
from halfbyte.layers.build_kernel_form import for_gpu
from halfbyte.quantize import decide
from halfbyte.quantize.select import model_bytes

GB = 10**9


@functools.cache
def flux():
    with torch.device("meta"):
        model = FluxTransformer2DModel(guidance_embeds=True, num_layers=19, num_single_layers=38)
    return model.to(torch.bfloat16)


@pytest.fixture(autouse=True)
def with_kernels(monkeypatch):
    monkeypatch.setattr(build_kernel_form, "missing_kernels", lambda: None)


def kept_and_unpacked(shape, layer_format, capability):
    """Bytes beside the storage that a layer keeps, and the most that a call unpacks into."""
    schema = layer_format.tensors(*shape)
    storage = {name: torch.empty(size, dtype=dtype, device="meta") for name, (size, dtype) in schema.items()}
    form = for_gpu(LowBitWeight(storage, layer_format, shape, torch.bfloat16, memory="4bit"), capability)
    return form.nbytes, getattr(form, "workspace_bytes", 0)


@pytest.mark.parametrize("capability", [(9, 0), (12, 0)], ids=str)
@pytest.mark.parametrize("recipe", ["svdq_int4", "svdq_nvfp4"])
def test_at_most_seven_gigabytes(recipe, capability):
    decisions = decide(flux(), recipe)
    stored, before = model_bytes(flux(), decisions)
    assert 23.7 * GB < before < 23.9 * GB
    layers = [decision for decision in decisions if decision.layer_format]
    forms = {key: kept_and_unpacked(*key, capability) for key in {(layer.shape, layer.layer_format) for layer in layers}}
    kept = sum(forms[layer.shape, layer.layer_format][0] for layer in layers)
    unpacked = max(workspace for _, workspace in forms.values())
    assert kept < 0.02 * GB and unpacked <= 48 * 10**6
    assert 6.5 * GB < stored + kept + unpacked <= 7 * GB
    assert (unpacked == 0) == (recipe == "svdq_nvfp4" and capability == (12, 0))
    # What the same layers take when everything is folded once, the codes alone.
    folded = sum(layer.shape[0] * layer.shape[1] for layer in layers if layer.layer_format.activation)
    assert stored + folded > 15 * GB
