"""What a 12 B model takes on a GPU that folds its 4-bit weights: FLUX.1-dev's own shapes, without a byte of weights."""

import functools

import pytest
import torch
from diffusers import FluxTransformer2DModel

from halfbyte.layers import LowBitWeight, build_kernel_form
from halfbyte.layers.build_kernel_form import for_gpu
from halfbyte.layers.streamed_form import CACHED_BYTES, StreamedForm
from halfbyte.quantize import decide
from halfbyte.quantize.select import model_bytes
from halfbyte.testing import PeakBytes

GB = 10**9


@functools.cache
def flux():
    with torch.device("meta"):
        model = FluxTransformer2DModel(guidance_embeds=True, num_layers=19, num_single_layers=38)
    return model.to(torch.bfloat16)


@pytest.fixture(autouse=True)
def with_kernels(monkeypatch):
    monkeypatch.setattr(build_kernel_form, "missing_kernels", lambda: None)


def small_form(shape, layer_format, capability):
    schema = layer_format.tensors(*shape)
    storage = {name: torch.empty(size, dtype=dtype, device="meta") for name, (size, dtype) in schema.items()}
    return for_gpu(LowBitWeight(storage, layer_format, shape, torch.bfloat16, memory="4bit"), capability)


@pytest.mark.parametrize("capability", [(9, 0), (12, 0)], ids=str)
@pytest.mark.parametrize("recipe", ["svdq_int4", "svdq_nvfp4"])
def test_at_most_seven_gigabytes(recipe, capability):
    decisions = decide(flux(), recipe)
    stored, before = model_bytes(flux(), decisions)
    assert 23.7 * GB < before < 23.9 * GB
    layers = [decision for decision in decisions if decision.layer_format]
    forms = {key: small_form(*key, capability) for key in {(layer.shape, layer.layer_format) for layer in layers}}
    kept = sum(forms[layer.shape, layer.layer_format].nbytes for layer in layers)
    unpacked = max((form.workspace_bytes for form in forms.values() if isinstance(form, StreamedForm)), default=0)
    assert kept < 0.02 * GB and unpacked <= 48 * 10**6
    assert 6.5 * GB < stored + kept + unpacked <= 7 * GB
    assert (unpacked == 0) == (recipe == "svdq_nvfp4" and capability == (12, 0))
    # What the same layers take when everything is folded once, the codes alone.
    folded = sum(layer.shape[0] * layer.shape[1] for layer in layers if layer.layer_format.activation)
    assert stored + folded > 15 * GB


@pytest.mark.parametrize("tokens", [1, 512, 4096])
@pytest.mark.parametrize("recipe", ["svdq_int4", "svdq_nvfp4"])
def test_a_call_never_waits_for_the_gpu_and_holds_what_is_stated(recipe, tokens):
    """On the meta device there are no values: a form that asked for one would fail. A CUDA graph captures what does not."""
    stored = [each for each in decide(flux(), recipe) if each.layer_format]
    layers = {(each.shape, each.layer_format) for each in stored if each.layer_format.activation}
    for (n, k), layer_format in layers:
        form = small_form((n, k), layer_format, (9, 0))
        x, bias = (torch.empty(*size, dtype=torch.bfloat16, device="meta") for size in ((1, tokens, k), (n,)))
        with PeakBytes() as peak:
            y = form.linear(x, bias)
        assert y.shape == (1, tokens, n)
        # Codes, token scales and low-rank part of the activations, and outputs once; folded codes live within the op.
        activations = tokens * (k + 2 * layer_format.rank) + 4 * (tokens + 7) + y.nbytes
        assert y.nbytes < peak.bytes <= activations and form.workspace_bytes <= CACHED_BYTES
