"""Model in, low-bit model out: streamed, resumable with the same bits, never left half converted."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from halfbyte.convert import convert
from halfbyte.layers import LowBitWeight
from halfbyte.quantize import RECIPES, decide

RECIPE = replace(RECIPES["svdq_int4"], iterations=3, rows=128, max_rows=128)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(64, 64) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(64, 64), nn.Dropout(0)])

    def forward(self, hidden_states):
        q, k, v = (layer(hidden_states) for layer in (self.to_q, self.to_k, self.to_v))
        return self.to_out[0](nn.functional.scaled_dot_product_attention(q, k, v))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.conv1 = Attention(), nn.Conv2d(64, 64, 3, padding=1)

    def forward(self, x):
        x = x + self.attn(x)
        image = x.transpose(1, 2).unflatten(2, (4, 4))
        return x + self.conv1(image).flatten(2).transpose(1, 2)


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.x_embedder, self.blocks, self.proj_out = nn.Linear(8, 64), nn.ModuleList([Block(), Block()]), nn.Linear(64, 8)

    def forward(self, x):
        x = self.x_embedder(x)
        for block in self.blocks:
            x = block(x)
        return self.proj_out(x)


LEAVES = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "conv1")
LAYERS = [f"blocks.{index}.{leaf}" for index in (0, 1) for leaf in LEAVES]


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture
def model():
    torch.manual_seed(5)
    return Denoiser()


def calibration(model):
    inputs = torch.randn(3, 8, 16, 8, generator=torch.Generator().manual_seed(1))
    return lambda: [model(x) for x in inputs]


def bits(model):
    """Every stored tensor of every low-bit layer."""
    return {
        f"{name}.{key}": tensor
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight", None), LowBitWeight)
        for key, tensor in module.weight.storage.items()
    }


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def snapshot(model):
    return {name: (parameter, parameter.clone()) for name, parameter in model.named_parameters()}


def is_untouched(model, before):
    now = dict(model.named_parameters())
    return all(now[name] is parameter and torch.equal(parameter, value) for name, (parameter, value) in before.items())


def test_converts_every_decided_layer_and_says_what_was_found(model):
    x = torch.randn(2, 16, 8)
    expected = model(x)
    seen = []
    decisions = convert(model, RECIPE, calibration(model), progress=lambda *call: seen.append(call))
    assert [d.name for d in decisions if d.layer_format] == LAYERS
    assert {key.rpartition(".")[0] for key in bits(model)} == set(LAYERS)
    assert all("dB on held-out rows" in d.reason for d in decisions if d.layer_format)
    assert all(type(model.get_submodule(name)) in (nn.Linear, nn.Conv2d) for name in LAYERS)
    assert seen[-1][:2] == (10, 10) and [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert (model(x) - expected).norm() < 0.3 * expected.norm()


def test_a_layer_that_calibration_hardly_reaches_is_fitted_without_data(model):
    x = torch.randn(3, 16, 8)
    decisions = convert(model, RECIPE, lambda: model.blocks[0](model.x_embedder(x)))
    reasons = {d.name: d.reason for d in decisions}
    assert "held-out" in reasons["blocks.0.attn.to_k"]
    assert reasons["blocks.1.attn.to_k"].endswith("fitted without data as calibration reached it with fewer than 16 rows")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_models(model, dtype):
    model = model.to(dtype)
    x = torch.randn(2, 16, 8, dtype=dtype)
    expected = model(x).float()
    inputs = torch.randn(8, 16, 8, dtype=dtype, generator=torch.Generator().manual_seed(1))
    convert(model, RECIPE, lambda: model(inputs))
    assert {tensor.dtype for key, tensor in bits(model).items() if not key.endswith("qweight")} == {dtype}
    assert (model(x).float() - expected).norm() < 0.3 * expected.norm()


def test_stored_bytes_are_those_decided(model):
    decisions = convert(model, RECIPE, calibration(model))
    tensors = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in bits(model).values()}
    assert sum(tensors.values()) == sum(d.stored_bytes for d in decisions if d.layer_format)


def test_queries_keys_and_values_share_one_down_factor(model):
    convert(model, RECIPE)
    downs = [model.blocks[1].attn.get_submodule(leaf).weight.storage["proj_down"] for leaf in ("to_q", "to_k", "to_v")]
    assert len({down.data_ptr() for down in downs}) == 1


@pytest.mark.parametrize("recipe", ["rtn_int4", "rtn_nvfp4", "int8", "fp8"])
def test_plain_recipes_need_no_calibration(model, recipe):
    x = torch.randn(2, 16, 8)
    expected = model(x)

    def never():
        raise AssertionError("a recipe without anything to fit ran the calibration")

    convert(model, recipe, never)
    assert (model(x) - expected).norm() < 0.3 * expected.norm()


def test_the_same_inputs_give_the_same_bits(model):
    torch.manual_seed(5)
    other = Denoiser()
    convert(model, RECIPE, calibration(model))
    torch.manual_seed(123)
    convert(other, RECIPE, calibration(other))
    assert same(bits(model), bits(other))


@pytest.mark.parametrize("low_memory", [False, True])
def test_passes_under_a_memory_budget(model, low_memory):
    runs = []

    def counted():
        runs.append(1)
        calibration(model)()

    decisions = convert(model, RECIPE, counted, memory_budget=1, low_memory=low_memory)
    assert len(runs) == 2
    assert len([d for d in decisions if d.layer_format]) == len({key.rpartition(".")[0] for key in bits(model)})


def test_several_passes_give_the_bits_of_one(model):
    torch.manual_seed(5)
    other = Denoiser()
    convert(model, RECIPE, calibration(model))
    convert(other, RECIPE, calibration(other), memory_budget=1)
    assert same(bits(model), bits(other))


class Interrupt:
    """A progress callback that ends the conversion after so many layers."""

    def __init__(self, after):
        self.after = after

    def __call__(self, done, total, name):
        if done >= self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [0, 3, 7, 10])
def test_an_interrupted_conversion_leaves_the_model_float(model, after):
    before = snapshot(model)
    x = torch.randn(1, 16, 8)
    expected = model(x)
    with pytest.raises(KeyboardInterrupt):
        convert(model, RECIPE, calibration(model), progress=Interrupt(after))
    assert is_untouched(model, before)
    assert torch.equal(model(x), expected)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_failing_install_puts_the_float_weights_back(model, monkeypatch):
    from halfbyte import convert as module

    before, install, calls = snapshot(model), module.install, []

    def failing(layer, weight):
        calls.append(layer)
        if len(calls) == 4:
            raise MemoryError
        install(layer, weight)

    monkeypatch.setattr(module, "install", failing)
    with pytest.raises(MemoryError):
        convert(model, RECIPE)
    assert is_untouched(model, before)


@pytest.mark.parametrize("calibrated", [False, True])
def test_resuming_continues_with_the_same_bits(model, tmp_path, calibrated):
    torch.manual_seed(5)
    other = Denoiser()
    convert(model, RECIPE, calibration(model) if calibrated else None)
    data = calibration(other) if calibrated else None
    with pytest.raises(KeyboardInterrupt):
        convert(other, RECIPE, data, progress=Interrupt(6), resume=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    fitted = []
    decisions = convert(other, RECIPE, data, progress=lambda done, total, name: fitted.append((done, name)), resume=tmp_path)
    assert same(bits(model), bits(other))
    assert fitted[0][0] > 0, "the first block came from the folder"
    assert len(list(tmp_path.glob("*.safetensors"))) == len(list(tmp_path.iterdir())) == 2
    downs = [other.blocks[0].attn.get_submodule(leaf).weight.storage["proj_down"] for leaf in ("to_q", "to_v")]
    assert downs[0].data_ptr() == downs[1].data_ptr()
    if calibrated:
        assert all("dB on held-out rows" in d.reason for d in decisions if d.layer_format)


@pytest.mark.parametrize("change", ["weights", "recipe", "calibration"])
def test_finished_blocks_of_another_conversion_are_not_used(model, tmp_path, change):
    convert(model, RECIPE, calibration(model), resume=tmp_path)
    torch.manual_seed(6 if change == "weights" else 5)
    other = Denoiser()
    data = calibration(other)
    if change == "calibration":
        data = lambda: other(torch.ones(8, 16, 8))  # noqa: E731
    convert(other, replace(RECIPE, iterations=4) if change == "recipe" else RECIPE, data, resume=tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 4


def test_a_damaged_file_is_fitted_again(model, tmp_path):
    torch.manual_seed(5)
    other = Denoiser()
    convert(model, RECIPE, resume=tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    convert(other, RECIPE, resume=tmp_path)
    assert same(bits(model), bits(other))


def test_decisions_must_match_the_model(model):
    decisions = decide(model, RECIPE)
    quantized = next(index for index, d in enumerate(decisions) if d.layer_format)
    wrong = [*decisions[:quantized], replace(decisions[quantized], shape=(64, 128)), *decisions[quantized + 1 :]]
    with pytest.raises(ValueError, match=r"blocks.0.attn.to_q with a weight of \(64, 128\) needed .* got a weight of \(64, 64\)"):
        convert(model, None, decisions=wrong)
    with pytest.raises(ValueError, match="decisions: .* got no such layer"):
        convert(model, None, decisions=[replace(decisions[quantized], name="gone")])
    with pytest.raises(ValueError, match="recipe: a name or a Recipe needed"):
        convert(model, None)


def test_a_model_without_data_is_refused():
    with torch.device("meta"):
        model = Denoiser()
    with pytest.raises(ValueError, match=r"model: blocks.0.attn.to_q.weight needed with data to convert, got a meta tensor"):
        convert(model, RECIPE)
