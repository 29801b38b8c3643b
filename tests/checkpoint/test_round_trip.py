import copy
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from halfbyte.checkpoint import (
    HalfbyteConfig,
    LayerMap,
    attach_quantizer,
    detach_quantizer,
    load_pipeline,
    read_model_folder,
    read_pipeline_folder,
    register,
)
from halfbyte.formats import LayerFormat

register()
SVDQ = LayerFormat("int4", "int4", rank=4, smooth=True)
FORMATS = {
    "int4-svdq": SVDQ,
    "nvfp4": LayerFormat("nvfp4", "nvfp4", rank=4, four_over_six=True),
    "int8": LayerFormat("int8", "int8"),
    "fp8": LayerFormat("fp8", "fp8", smooth=True),
    "w4a16": LayerFormat("int4", None),
}
WEIGHTS = "diffusion_pytorch_model.safetensors"


def saved(tools, folder, build="dit", layer_format=SVDQ, dtype=torch.float32, **kwargs):
    model = tools.low_bit(getattr(tools, build)(dtype), layer_format)
    attach_quantizer(model)
    model.save_pretrained(folder, **kwargs)
    return model


def low_bit_weights(model):
    return {name: p for name, p in model.named_parameters() if hasattr(p, "layer_format")}


def assert_same_tensors(model, again):
    """Bit for bit: every stored tensor, type, and which layers share a factor."""
    assert LayerMap.of(dict(model.named_parameters())) == LayerMap.of(dict(again.named_parameters()))
    parameters = dict(again.named_parameters())
    for name, parameter in model.named_parameters():
        other = parameters[name]
        assert (parameter.dtype, parameter.shape) == (other.dtype, other.shape), name
        pairs = [(parameter, other)]
        if hasattr(parameter, "layer_format"):
            pairs = [(value, other.storage[key]) for key, value in parameter.storage.items()]
        for a, b in pairs:
            assert a.dtype == b.dtype and torch.equal(a.float(), b.float()), name


@pytest.mark.parametrize("layer_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(("build", "dtype"), [("dit", torch.bfloat16), ("unet", torch.float32)], ids=["dit-bf16", "unet-fp32"])
def test_every_format_comes_back_bit_for_bit(tools, tmp_path, build, dtype, layer_format):
    model = saved(tools, tmp_path, build, layer_format, dtype)
    again = type(model).from_pretrained(tmp_path, torch_dtype=dtype)
    assert len(low_bit_weights(again)) > 10
    assert_same_tensors(model, again)
    assert torch.equal(tools.run(model), tools.run(again))


def test_file_holds_plain_tensors_a_small_config_and_a_shared_factor_once(tools, tmp_path):
    model = saved(tools, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "halfbyte" and len(json.dumps(config)) < 2048
    with safe_open(tmp_path / WEIGHTS, "pt") as file:
        names = set(file.keys())
    assert "transformer_blocks.0.attn1.to_q.proj_down" in names and "transformer_blocks.0.attn1.to_q.weight" not in names
    assert "transformer_blocks.0.attn1.to_k.proj_down" not in names and "transformer_blocks.0.attn1.to_k.proj_up" in names
    described = read_model_folder(tmp_path)
    assert described.low_bit and described.stored_bytes == sum(t.nbytes for t in load_file(tmp_path / WEIGHTS).values())
    assert described.stored_bytes < 0.5 * sum(p.numel() * 4 for p in tools.dit().parameters()) and model.training is False


def test_shards_one_of_which_splits_a_layer(tools, tmp_path):
    model = saved(tools, tmp_path, max_shard_size="5KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 5
    where = json.loads(next(tmp_path.glob("*.index.json")).read_text())["weight_map"]
    assert any(
        where[f"{n}.qweight"] != where[f"{n}.wscales"] for n in map(lambda k: k.removesuffix(".weight"), low_bit_weights(model))
    )
    again = type(model).from_pretrained(tmp_path)
    assert_same_tensors(model, again)
    assert torch.equal(tools.run(model), tools.run(again))


def test_saved_again_is_the_same_file(tools, tmp_path):
    model = saved(tools, tmp_path / "a", "unet")
    again, info = type(model).from_pretrained(tmp_path / "a", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], "diffusers would warn"
    copy.deepcopy(again).save_pretrained(tmp_path / "b")
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()
    first, second = (json.loads((tmp_path / x / "config.json").read_text()) for x in "ab")
    assert first["quantization_config"] == second["quantization_config"]


def test_another_dtype_is_that_of_the_whole_model(tools, tmp_path):
    model = saved(tools, tmp_path, dtype=torch.bfloat16)
    wide = type(model).from_pretrained(tmp_path)
    assert {p.dtype for p in wide.parameters()} == {torch.float32}
    for name, weight in low_bit_weights(wide).items():
        assert torch.equal(weight.dequantize(), model.get_parameter(name).dequantize()), "widening must not change a weight"
    assert LayerMap.of(dict(wide.named_parameters())) == LayerMap.of(dict(model.named_parameters()))


def test_a_model_cast_after_loading_saves_in_its_new_dtype(tools, tmp_path):
    model = saved(tools, tmp_path / "a")
    half = type(model).from_pretrained(tmp_path / "a").to(torch.float16)
    assert {p.dtype for p in half.parameters()} == {torch.float16}
    half.save_pretrained(tmp_path / "b")
    assert_same_tensors(half, type(model).from_pretrained(tmp_path / "b", torch_dtype=torch.float16))


def test_device_map(tools, tmp_path):
    model = saved(tools, tmp_path)
    again = type(model).from_pretrained(tmp_path, device_map="cpu")
    assert_same_tensors(model, again)
    with pytest.raises(ValueError, match="'disk'"):
        type(model).from_pretrained(tmp_path, device_map={"": "disk"}, offload_folder=tmp_path / "off")


def pipeline(transformer):
    from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline

    torch.manual_seed(1)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4, layers_per_block=1, sample_size=8).eval()
    return DiTPipeline(transformer, vae, DDIMScheduler())


FRESH = """
import sys, torch
from diffusers import DiffusionPipeline
from halfbyte.checkpoint import register
register()
pipe = DiffusionPipeline.from_pretrained(sys.argv[1])
pipe.set_progress_bar_config(disable=True)
generator = torch.Generator().manual_seed(0)
images = pipe([3, 5], num_inference_steps=2, guidance_scale=1.0, generator=generator, output_type="np").images
from safetensors.torch import save_file
save_file({"images": torch.from_numpy(images)}, sys.argv[2])
"""


def test_a_pipeline_in_a_fresh_process_gives_the_same_bits(tools, tmp_path, monkeypatch):
    # Of what is measured, a busy machine measures nothing, and the next process may find it idle.
    monkeypatch.setenv("HALFBYTE_CPU_KIND", "int8")
    model = tools.low_bit(tools.dit(), SVDQ)
    attach_quantizer(model)
    pipe = pipeline(model)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(tmp_path / "pipe")
    call = {"num_inference_steps": 2, "guidance_scale": 1.0, "output_type": "np"}
    images = pipe([3, 5], generator=torch.Generator().manual_seed(0), **call).images
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run([sys.executable, "-c", FRESH, tmp_path / "pipe", tmp_path / "out"], check=True, env=environment, cwd=tmp_path)
    assert torch.equal(load_file(tmp_path / "out")["images"], torch.from_numpy(images))

    folders = read_pipeline_folder(tmp_path / "pipe")
    assert {name: folder.low_bit for name, folder in folders.items()} == {"transformer": True, "vae": False}
    again = load_pipeline(tmp_path / "pipe")
    assert torch.equal(
        torch.from_numpy(again([3, 5], generator=torch.Generator().manual_seed(0), **call).images), torch.from_numpy(images)
    )


def test_importing_diffusers_after_registering_is_enough_and_registering_imports_nothing():
    code = (
        "import sys; from halfbyte.checkpoint import register; register(); register()\n"
        "waiting = lambda: sum(type(finder).__name__ == '_AfterImport' for finder in sys.meta_path)\n"
        "assert not {'diffusers', 'torch'} & set(sys.modules) and waiting() == 1\n"
        "from halfbyte.checkpoint import HalfbyteConfig\n"
        "from diffusers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING\n"
        "assert AUTO_QUANTIZER_MAPPING['halfbyte'].__name__ == 'HalfbyteQuantizer' and waiting() == 0\n"
        "assert AUTO_QUANTIZATION_CONFIG_MAPPING['halfbyte'] is HalfbyteConfig\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_refuses_to_write_pickle(tools, tmp_path):
    model = tools.low_bit(tools.dit(), SVDQ)
    attach_quantizer(model)
    with pytest.raises(ValueError, match="safe_serialization"):
        model.save_pretrained(tmp_path, safe_serialization=False)
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".bin"]


def test_formats_changed_after_attaching(tools, tmp_path):
    model = tools.low_bit(tools.dit(), SVDQ, names=["transformer_blocks.0.attn1.to_q"])
    attach_quantizer(model)
    tools.low_bit(model, SVDQ, names=["transformer_blocks.1.attn1.to_q"])
    with pytest.raises(ValueError, match="transformer_blocks.1.attn1.to_q: its format changed"):
        model.save_pretrained(tmp_path)
    attach_quantizer(model)
    model.save_pretrained(tmp_path)
    assert len(low_bit_weights(type(model).from_pretrained(tmp_path))) == 2


def test_a_float_model_is_not_attached_and_a_detached_one_saves_plainly(tools, tmp_path):
    model = tools.dit()
    with pytest.raises(ValueError, match="at least one low-bit layer"):
        attach_quantizer(model)
    name = "transformer_blocks.0.attn1.to_q"
    weight = model.get_submodule(name).weight
    attach_quantizer(tools.low_bit(model, SVDQ, names=[name]))
    model.get_submodule(name).weight = weight
    detach_quantizer(model)
    model.save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    assert torch.equal(tools.run(type(model).from_pretrained(tmp_path)), tools.run(model))


def test_loaded_adapters_must_go_before_saving(tools, tmp_path):
    from peft import LoraConfig

    model = tools.low_bit(tools.unet(), SVDQ)
    attach_quantizer(model)
    model.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    with pytest.raises(ValueError, match="unload_lora_weights"):
        model.save_pretrained(tmp_path)


def test_a_float_folder_with_our_config_passed_in_is_refused(tools, tmp_path):
    model = tools.dit()
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a float model; .*accelerate"):
        type(model).from_pretrained(tmp_path, quantization_config=HalfbyteConfig(formats={}, layers={}, shared_down={}))


def test_without_accelerate_the_error_says_what_to_install(tools, tmp_path, monkeypatch):
    from halfbyte.checkpoint import diffusers_quantizer

    model = saved(tools, tmp_path)
    monkeypatch.setattr(diffusers_quantizer, "is_accelerate_available", lambda: False)
    with pytest.raises(ImportError, match="pip install accelerate"):
        type(model).from_pretrained(tmp_path)
