"""memory="4bit": nothing larger than the storage is kept, and what is computed stays the same."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from halfbyte.layers import build_kernel_form, expanded_each_call, low_bit_layers, merged_branch, prepare, streamed_form
from halfbyte.layers.build_kernel_form import for_gpu, kernel_form, small_form
from halfbyte.layers.stored_rows import row_chunks
from halfbyte.layers.streamed_form import CACHED_BYTES, CHANNEL_MULTIPLE, chunk_channels
from halfbyte.testing import LIMITS, PeakBytes, relative_rms

FOLDS = {
    "int4": ({"weight": "int4", "activation": "int4"}, "int8"),
    "nvfp4": ({"weight": "nvfp4", "activation": "nvfp4"}, "fp8"),
    "nvfp4-int8": ({"weight": "nvfp4", "activation": "nvfp4", "four_over_six": True}, "int8"),
}
NEVER_MERGED = -2
MOST_WORKSPACE_BYTES = 64 * 2**20


@pytest.fixture
def small_chunks(monkeypatch):
    """Every product of these tests in several chunks, the last one ragged."""
    monkeypatch.setattr(streamed_form, "CHANNEL_MULTIPLE", 16)
    monkeypatch.setattr(streamed_form, "CACHED_BYTES", 16 * 128)


@pytest.mark.parametrize("kind", FOLDS)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("rank", [0, 12])
def test_a_linear_layer_computes_the_bits_of_the_fast_form(make_linear, kind, bias, rank, small_chunks, monkeypatch):
    monkeypatch.setattr(merged_branch, "MERGED_GROWTH", NEVER_MERGED)
    format, activation = FOLDS[kind]
    layer = make_linear(bias=bias, dtype=torch.bfloat16, rank=rank, **format)
    x = torch.randn(2, 5, 128, dtype=torch.bfloat16)
    fast, small = (make(layer.weight, activation, "asked for") for make in (kernel_form, small_form))
    assert fast.kind == f"kernel {activation}" and small.kind == f"streamed {activation}"
    assert torch.equal(small.linear(x, layer.bias), fast.linear(x, layer.bias))
    assert small.nbytes - small.kernel.nbytes == (1 if kind == "int4" else 2) * 4 * 72 and fast.nbytes > 72 * 128


@pytest.mark.parametrize("kind", FOLDS)
def test_so_does_a_convolution(make_conv, kind, monkeypatch):
    monkeypatch.setattr(merged_branch, "MERGED_GROWTH", NEVER_MERGED)
    format, activation = FOLDS[kind]
    conv = make_conv(dtype=torch.bfloat16, **format)
    x = torch.randn(2, 64, 6, 5, dtype=torch.bfloat16)
    geometry = (conv.stride, conv.padding, conv.dilation)
    fast, small = (make(conv.weight, activation, "asked for") for make in (kernel_form, small_form))
    assert torch.equal(small.conv2d(x, conv.bias, *geometry), fast.conv2d(x, conv.bias, *geometry))


def test_a_branch_that_the_fast_form_merges_stays_beside(make_linear):
    layer = make_linear(dtype=torch.bfloat16)
    x = torch.randn(7, 128, dtype=torch.bfloat16)
    fast, small = kernel_form(layer.weight, "int8", ""), small_form(layer.weight, "int8", "")
    assert fast.proj_down is None and small.kernel.proj_down is layer.weight.proj_down
    assert 0 < relative_rms(small.linear(x, layer.bias), fast.linear(x, layer.bias)) < 2 * LIMITS["int8"].rounding


def test_codes_that_a_gpu_runs_in_place_are_in_both_modes(make_linear):
    for activation in ("int4", None):
        weight = make_linear(dtype=torch.bfloat16, activation=activation, rank=8).weight
        form = small_form(weight, activation, "asked for")
        assert form.kind.startswith("kernel") and form.qweight is weight.qweight and form.nbytes == 0


@pytest.mark.parametrize("weight", ["int4", "nvfp4", "int8", "fp8"])
@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0), (10, 0), (12, 0)], ids=str)
def test_on_no_gpu_is_anything_kept_that_is_larger_than_the_storage(make_linear, weight, capability, monkeypatch):
    monkeypatch.setattr(build_kernel_form, "missing_kernels", lambda: None)
    for dtype in (torch.bfloat16, torch.float32):
        layer = make_linear(512, 1024, dtype=dtype, weight=weight, activation=weight)
        layer.weight.memory = "4bit"
        form = for_gpu(layer.weight, capability)
        # Two scales per channel.
        assert form.nbytes <= 2 * 4 * 512 < layer.weight.stored_bytes / 20
        x = torch.randn(3, 1024, dtype=dtype)
        if form.kind != "kernel int4":
            want = F.linear(x.float(), layer.weight.dequantize(), layer.bias.float())
            assert relative_rms(form.linear(x, layer.bias), want) < (0.17 if form.kind == "kernel nvfp4" else 0.05)


@pytest.mark.parametrize("weight", ["int4", "nvfp4"])
@pytest.mark.parametrize("kind", ["linear", "convolution", "16-bit activations"])
def test_on_a_cpu_too(make_linear, make_conv, kind, weight):
    options = {"weight": weight, "activation": None if kind.startswith("16") else weight}
    layer = make_conv(**options) if kind == "convolution" else make_linear(**options)
    x = torch.randn(2, 64, 6, 5) if kind == "convolution" else torch.randn(2, 5, 128)
    report = prepare(layer, memory="4bit")
    assert report.memory == "4bit" and 0 < report.workspace_bytes <= MOST_WORKSPACE_BYTES
    assert report.layers[0].kind == ("streamed int8" if kind == "linear" else "streamed float32")
    want = layer.weight.dequantize()
    want = F.conv2d(x, want, layer.bias, padding=1) if kind == "convolution" else F.linear(x, want, layer.bias)
    assert relative_rms(layer(x), want) < (0.02 if kind == "linear" else 1e-5)


@pytest.mark.parametrize("weight", ["int4", "nvfp4", "int8", "fp8"])
@pytest.mark.parametrize("convolves", [False, True], ids=["linear", "convolution"])
def test_a_dense_weight_in_parts_is_the_dense_weight(make_linear, make_conv, weight, convolves, monkeypatch):
    monkeypatch.setattr(expanded_each_call, "row_chunks", partial(row_chunks, working_bytes=1))
    layer = (make_conv if convolves else make_linear)(weight=weight, activation=weight)
    layer.weight.data += 0.1
    form = expanded_each_call.expand_each_call(layer.weight, torch.float32, "")
    if convolves:
        x, geometry = torch.randn(2, 64, 6, 5), (layer.stride, layer.padding, layer.dilation)
        got, want = form.conv2d(x, layer.bias, *geometry), F.conv2d(x, layer.weight.dequantize(), layer.bias, *geometry)
    else:
        x = torch.randn(2, 5, 128)
        got, want = form.linear(x, layer.bias), F.linear(x, layer.weight.dequantize(), layer.bias)
    assert len(row_chunks(layer.weight.shape[0], 128, 1)) > 2 and relative_rms(got, want) < LIMITS["float32"].agreement


def test_what_is_traced_before_it_was_prepared_keeps_nothing_either(make_linear, monkeypatch):
    weight = make_linear().weight
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert weight.prepared().kind == "expanded float32"
    weight.memory = "4bit"
    assert (weight.prepared().kind, weight.prepared().nbytes) == ("streamed float32", 0)


@pytest.mark.parametrize("k", [3072, 15360])
@pytest.mark.parametrize("n", [8, 1000, 3072, 12288, 18432])
def test_chunks_stay_in_the_cache_and_are_the_whole_or_full_tiles(n, k):
    chunk = chunk_channels(n, k)
    assert chunk * k <= CACHED_BYTES
    assert chunk == n or (chunk % CHANNEL_MULTIPLE == 0 and n * k > CACHED_BYTES)


@pytest.mark.parametrize("kind", FOLDS)
def test_a_call_holds_one_chunk_of_codes_at_a_time(make_linear, kind, small_chunks):
    format, activation = FOLDS[kind]
    layer = make_linear(1024, 128, dtype=torch.bfloat16, bias=False, **format)
    form = small_form(layer.weight, activation, "")
    x = torch.randn(1, 128, dtype=torch.bfloat16)
    form.linear(x, None)
    with PeakBytes() as peak:
        y = form.linear(x, None)
    parts_and_joined = 2 * y.nbytes
    assert form.workspace_bytes == 16 * 128
    # Activations of one row, beside codes, outputs and nothing else.
    assert form.workspace_bytes < peak.bytes < parts_and_joined + form.workspace_bytes + 2048


class Model(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


@pytest.fixture
def model(make_linear):
    return Model(make_linear(128, 128), nn.GELU(), make_linear(72, 128))


def test_the_choice_survives_copies_and_conversions(model):
    prepare(model, memory="4bit")
    x = torch.randn(3, 128)
    before = model(x)
    for copied in (copy.deepcopy(model), copy.deepcopy(model).to(torch.bfloat16).to(torch.float32)):
        assert {layer.weight.memory for layer in low_bit_layers(copied).values()} == {"4bit"}
        assert [layer.weight.prepared().kind for layer in low_bit_layers(copied).values()] == ["streamed int8"] * 2
        assert relative_rms(copied(x), before) < 0.01
    prepare(model)
    assert {layer.weight.memory for layer in low_bit_layers(model).values()} == {"fast"}


def test_a_fused_adapter_runs_beside_and_leaves_no_trace(model):
    prepare(model, memory="4bit")
    x, layer = torch.randn(3, 128), model.layers[2]
    before = model(x)
    delta = torch.randn(72, 2) @ torch.randn(2, 128) * 0.1
    hidden_states = F.gelu(model.layers[0](x))
    layer.weight.data += delta
    assert layer.weight.prepared().kind == "streamed int8"
    assert relative_rms(model(x), before + hidden_states @ delta.t()) < 1e-4
    layer.weight.data -= delta
    assert torch.equal(model(x), before)


def test_what_is_saved_does_not_depend_on_it(model):
    stored = {name: {key: t.clone() for key, t in layer.weight.storage.items()} for name, layer in low_bit_layers(model).items()}
    prepare(model, memory="4bit")
    model(torch.randn(3, 128))
    for name, layer in low_bit_layers(model).items():
        assert all(torch.equal(stored[name][key].float(), t.float()) for key, t in layer.weight.storage.items())


def test_compiled_code_streams_too(model, small_chunks):
    prepare(model, memory="4bit")
    x = torch.randn(5, 128)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), atol=1e-5, rtol=1e-5)
        with torch._dynamo.config.patch(error_on_recompile=True):
            compiled(x + 1)
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("memory", "numerics", "message"),
    [
        ("small", "native", "memory: one of fast, 4bit needed, got 'small'"),
        ("4bit", "w4a8", "memory: 'fast' needed with numerics w4a8, which are emulated in float32, got '4bit'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_changes(model, memory, numerics, message):
    with pytest.raises(ValueError, match=message):
        prepare(model, numerics, memory)
    assert model.layers[0].weight.numerics == "native" and model.layers[0].weight.memory == "fast"


def test_tensors_of_a_layer_are_counted_once(make_linear):
    form = small_form(make_linear(dtype=torch.bfloat16, rank=0).weight, "int8", "")
    assert form.product_scales is form.channel_scales and form.nbytes == 4 * 72
