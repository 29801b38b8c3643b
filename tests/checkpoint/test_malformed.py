"""What from_pretrained and our own loader do with a folder that was damaged or tampered with."""

import copy
import json
import random
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from halfbyte.checkpoint import (
    CheckpointError,
    HalfbyteConfig,
    LayerMap,
    attach_quantizer,
    build_schema,
    layer_names,
    load_pipeline,
    read_model_folder,
    register,
)
from halfbyte.formats import LayerFormat

register()
SVDQ = LayerFormat("int4", "int4", rank=4, smooth=True)
WEIGHTS = "diffusion_pytorch_model.safetensors"
SCALES = "transformer_blocks.1.attn1.to_k.wscales"
DOWN = "transformer_blocks.1.attn1.to_q.proj_down"


@pytest.fixture(scope="module")
def original(tools, tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    model = tools.low_bit(tools.dit(), SVDQ)
    attach_quantizer(model)
    model.save_pretrained(folder)
    return type(model), folder


@pytest.fixture
def copied(original, tmp_path):
    shutil.copytree(original[1], tmp_path / "model")
    return original[0], tmp_path / "model"


def edit_tensors(folder, edit):
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def edit_config(folder, edit):
    config = json.loads((folder / "config.json").read_text())
    edit(config)
    (folder / "config.json").write_text(json.dumps(config))


def poison(tensors, value):
    tensors[SCALES] = tensors[SCALES].clone()
    tensors[SCALES][0, 5] = value


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: poison(t, float("nan")), f"{SCALES}: finite values > 0 are needed, 1 of 64 are not, the first is nan"),
        (lambda t: poison(t, float("inf")), f"{SCALES}: .* inf"),
        (lambda t: poison(t, 0.0), f"{SCALES}: .* 0.0"),
        (lambda t: poison(t, -1.0), f"{SCALES}: .* -1.0"),
        (lambda t: t.pop(SCALES), f"{SCALES}: needed by the model .*missing from the checkpoint"),
        (lambda t: t.pop(DOWN), f"{DOWN}: needed by the model"),
        (lambda t: t.pop("proj_out_1.bias"), "proj_out_1.bias: needed by the model"),
        (lambda t: t.update(more=torch.zeros(2)), "more: in the checkpoint, but neither"),
        (
            lambda t: t.update({SCALES: t[SCALES][:, :-1].clone()}),
            rf"{SCALES}: shape \[1, 64\] is needed, the checkpoint has \[1, 63\]",
        ),
        (
            lambda t: t.update({SCALES: t[SCALES].half()}),
            "attn1.to_k.smooth_factor: float16 is needed as in .*to_k.wscales, the checkpoint has bfloat16",
        ),
        (lambda t: t.update({"proj_out_1.bias": t["proj_out_1.bias"].int()}), "proj_out_1.bias: .*int32"),
    ],
    ids=[
        "nan",
        "inf",
        "zero",
        "negative",
        "dropped",
        "dropped-shared",
        "dropped-float",
        "extra",
        "shape",
        "dtype",
        "float-as-int",
    ],
)
def test_tensors(copied, edit, message):
    model_class, folder = copied
    edit_tensors(folder, edit)
    with pytest.raises(CheckpointError, match=message) as error:
        model_class.from_pretrained(folder)
    assert "\n" not in str(error.value)


def test_a_name_twice_is_refused_where_the_library_takes_the_last(tools, copied):
    model_class, folder = copied
    header, data = tools.read_raw(folder / WEIGHTS)
    inner = json.dumps(header)
    forged = {**header[SCALES]}
    tools.write_raw(folder / WEIGHTS, (inner[:-1] + f", {json.dumps(SCALES)}: {json.dumps(forged)}}}").encode(), data)
    assert SCALES in load_file(folder / WEIGHTS)
    with pytest.raises(CheckpointError, match=f"'{SCALES}' is needed once in the header"):
        model_class.from_pretrained(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda q: q.update(trust_remote_code=True), "quantization_config.trust_remote_code: not a field"),
        (lambda q: q.update(format_version=2), "quantization_config.format_version: this one reads 1, the checkpoint has 2"),
        (lambda q: q.pop("layers"), "quantization_config.layers: a JSON dict is needed, got None"),
        (lambda q: q.update(layers={"int4_r4": "proj_out_1"}), "quantization_config.layers.int4_r4: a list of layer names"),
        (lambda q: q["layers"]["int4_r4"].remove("proj_out_2"), "proj_out_2.weight: needed by the model"),
        (lambda q: q["layers"]["int4_r4"].append("no.such.layer"), "'no.such.layer' must match"),
        (
            lambda q: q["formats"]["int4_r4"].update(rank=5),
            r"proj_down: shape \[256, 5\] is needed, the checkpoint has \[256, 4\]",
        ),
        (lambda q: q["formats"]["int4_r4"].update(rank=500), "rank 500 is larger"),
        (lambda q: q["formats"]["int4_r4"].update(rank="4"), "formats.int4_r4: rank"),
        (lambda q: q["formats"]["int4_r4"].update(weight="nf4"), "formats.int4_r4: weight"),
        (lambda q: q.update(shared_down={}), "attn1.to_k.proj_down .*: needed by the model"),
    ],
    ids=[
        "unknown",
        "version",
        "missing",
        "type",
        "layer-gone",
        "layer-added",
        "rank",
        "rank-bound",
        "rank-type",
        "format",
        "unshared",
    ],
)
def test_config(copied, edit, message):
    model_class, folder = copied
    edit_config(folder, lambda config: edit(config["quantization_config"]))
    with pytest.raises(CheckpointError, match=message) as error:
        model_class.from_pretrained(folder)
    assert "\n" not in str(error.value)


def leaves(value, path=()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from leaves(inner, (*path, key))


def test_mutated_configs_never_raise_anything_else(tools, original):
    model = tools.dit()
    names, rng = layer_names(model), random.Random(0)
    config = json.loads((original[1] / "config.json").read_text())["quantization_config"]
    paths = list(leaves({key: value for key, value in config.items() if key != "quant_method"}))
    values = [None, True, -1, 10**30, 1.5, "", "*", "{0-", "{0-1}.*", "\x00", [], [[]], {}, {"a": "b"}, ["*"], float("nan")]
    refused = 0
    for _ in range(300):
        mutated = copy.deepcopy(config)
        *parents, last = rng.choice(paths)
        target = mutated
        for key in parents:
            target = target[key]
        target[last] = rng.choice(values)
        try:
            build_schema(model, LayerMap.from_dict(HalfbyteConfig.from_dict(mutated).to_dict(), names))
        except CheckpointError as error:
            refused += 1
            assert len(str(error)) < 500
    assert refused > 200


def test_without_its_config_nothing_is_read(copied):
    model_class, folder = copied
    edit_config(folder, lambda config: config.pop("quantization_config"))
    with pytest.raises(CheckpointError, match="config.json: low-bit weights need a quantization_config"):
        read_model_folder(folder)
    # Nothing of ours is called here: diffusers itself stops at the guard tensor.
    with pytest.raises(
        ValueError, match=r"proj_out_1.weight expected shape torch.Size\(\[128, 64\]\), but got torch.Size\(\[0\]\)"
    ):
        model_class.from_pretrained(folder)
    with pytest.raises(RuntimeError, match="size mismatch for proj_out_1.weight"):
        model_class.from_pretrained(folder, low_cpu_mem_usage=False)


def test_without_its_config_and_its_guard_stock_loading_goes_on_without_values(copied):
    model_class, folder = copied
    edit_config(folder, lambda config: config.pop("quantization_config"))
    edit_tensors(folder, lambda tensors: tensors.pop("proj_out_1.weight"))
    assert model_class.from_pretrained(folder).get_submodule("transformer_blocks.0.attn1.to_q").weight.is_meta


def test_other_file_kinds(copied):
    model_class, folder = copied
    torch.save(load_file(folder / WEIGHTS), folder / "diffusion_pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="diffusion_pytorch_model.bin: a .safetensors file is needed"):
        model_class.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="got diffusion_pytorch_model.bin"):
        read_model_folder(folder)


def test_an_index_that_lists_other_tensors(original, tmp_path):
    model_class, folder = original
    model_class.from_pretrained(folder).save_pretrained(tmp_path, max_shard_size="40KB")
    path = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["more"] = index["weight_map"][SCALES]
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="more: the index and the shards"):
        model_class.from_pretrained(tmp_path)
    index["weight_map"]["more"] = "../elsewhere.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="weight_map must map tensors to file names in the same folder"):
        read_model_folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "a pipeline folder with model_index.json is needed, there is no such file"),
        ("{", "a JSON object is needed"),
        ("[]", "a JSON object is needed, got list"),
        ("[" * 100_000, "a JSON object is needed"),
        ('{"transformer": ["diffusers", "X"]}', "_class_name must name the pipeline, got None"),
    ],
    ids=["missing", "cut", "list", "deep", "no-class"],
)
def test_a_folder_that_is_not_a_pipeline(tmp_path, content, message):
    if content is not None:
        (tmp_path / "model_index.json").write_text(content)
    with pytest.raises(CheckpointError, match=message) as error:
        load_pipeline(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="a pipeline folder"):
        load_pipeline(tmp_path / "nowhere")
