"""The shipped models load plainly, stay small, keep their prompts apart, and draw the digit that was asked for."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DiTPipeline, DPMSolverMultistepScheduler, StableDiffusionPipeline
from safetensors import safe_open
from transformers import CLIPTokenizer, ResNetForImageClassification

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PROMPTS = [f"a handwritten {name}" for name in NAMES]
KINDS = {"dit": DiTPipeline, "unet": StableDiffusionPipeline}


@pytest.fixture(scope="module", params=KINDS)
def pipeline(request: pytest.FixtureRequest) -> DiTPipeline | StableDiffusionPipeline:
    loaded = KINDS[request.param].from_pretrained(DIGITS / request.param)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(DIGITS / "unet" / "tokenizer")


def token_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, padding="max_length", truncation=True).input_ids


def test_ten_prompts_stay_distinct_after_save_and_reload(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    ids = token_ids(again, PROMPTS)
    assert ids == token_ids(tokenizer, PROMPTS)
    assert len({tuple(row) for row in ids}) == len(PROMPTS)
    assert {len(row) for row in ids} == {again.model_max_length}


def test_merges_make_one_token_of_each_word(tokenizer):
    assert [len(tokenizer(prompt).input_ids) for prompt in PROMPTS] == [5] * 10  # start, three words, end


def test_an_unseen_word_is_spelled_not_unknown(tokenizer):
    ids = tokenizer("zebra", add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in ids and tokenizer.decode(ids) == "zebra"


@pytest.mark.parametrize("name", KINDS)
def test_weights_are_sixteen_bit_and_the_folder_is_small(name):
    files = [path for path in (DIGITS / name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 17 * 10**6
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".pkl", ".ckpt"}]
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as opened:
                assert {opened.get_slice(key).get_dtype() for key in opened.keys()} == {"F16"}, path


@pytest.mark.parametrize("name", KINDS)
def test_no_file_names_the_folder_it_was_trained_in(name):
    for path in (DIGITS / name).rglob("*.json"):
        assert json.loads(path.read_text()).get("_name_or_path", "") == "", path


def test_all_parts_load_in_one_float_type(pipeline):
    modules = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert {module.dtype for module in modules} == {torch.float32}


def test_the_noise_schedule_also_serves_dpm_solver(pipeline):
    solver = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    assert (solver.config.prediction_type, solver.config.timestep_spacing) == ("v_prediction", "trailing")
    torch.testing.assert_close(solver.alphas_cumprod, pipeline.scheduler.alphas_cumprod)


def test_labels_of_the_class_conditional_model_are_the_digits():
    dit = DiTPipeline.from_pretrained(DIGITS / "dit")
    assert dit.get_label_ids(list(NAMES)) == list(range(10))


def test_images_show_the_digit_that_was_asked_for(pipeline):
    classifier = ResNetForImageClassification.from_pretrained(DIGITS / "classifier").eval()
    labels = list(range(10)) * 3
    subject = ({"class_labels": labels} if isinstance(pipeline, DiTPipeline) else
               {"prompt": [PROMPTS[label] for label in labels]})
    images = pipeline(**subject, num_inference_steps=20, guidance_scale=2.0,
                      generator=torch.Generator().manual_seed(0), output_type="pt").images
    with torch.no_grad():
        drawn = classifier(images * 2 - 1).logits.argmax(dim=1)
    assert (drawn == torch.tensor(labels)).float().mean() >= 0.9
    assert images.std(dim=0).mean() > 0.05, "the images hardly differ from one another"
