"""Every subcommand end to end on the shipped models, small."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from halfbyte.cli import main

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `halfbyte <words>`; returns its exit code, stdout and stderr."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["halfbyte", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    return call


def test_doctor_says_what_is_here(run):
    code, out, _ = run("doctor", "--json")
    found = json.loads(out)
    assert code == 0 and found["machine"]["torch"] and "reference" in found["backends"]


def test_doctor_says_where_measured_configurations_are(run, monkeypatch, tmp_path):
    monkeypatch.setenv("HALFBYTE_CACHE_DIR", str(tmp_path))
    assert json.loads(run("doctor", "--json")[1])["triton_configurations"] == str(tmp_path / "triton")
    assert "none measured" in run("doctor")[1]
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "NVIDIA_H200.json").touch()
    assert "NVIDIA_H200" in run("doctor")[1]


def test_inspect_gives_a_reason_for_every_layer(run):
    code, out, _ = run("inspect", DIGITS / "unet", "--json")
    decisions = json.loads(out)["unet"]
    assert code == 0 and all(decision["reason"] for decision in decisions)
    assert any(d["role"] == "conv3x3" and d["layer_format"] for d in decisions)


def test_quantize_then_generate(run, tmp_path):
    folder = tmp_path / "digits-4bit"
    code, out, _ = run("quantize", DIGITS / "dit", folder, "--class-label", 1, "--steps", 3, "--cache", "interval:2", "--json")
    assert code == 0 and json.loads(out)["plan"]["storage"]["transformer"]
    code, out, _ = run("generate", folder, "--class-label", 3, "--class-label", 7, "--steps", 3, "--out", tmp_path / "out", "--json")
    assert code == 0
    assert [Image.open(path).size for path in json.loads(out)["images"]] == [(32, 32)] * 2
    assert not list(tmp_path.rglob("*.partial*"))
    words = "generate", folder, "--class-label", 3, "--steps", 3, "--memory", "4bit", "--out", tmp_path / "streamed", "--json"
    code, out, _ = run(*words)
    assert code == 0 and len(json.loads(out)["images"]) == 1


def test_demo_prints_every_row_and_draws_the_picture(run, tmp_path):
    words = ("--model", "dit", "--images", 2, "--steps", 4, "--repeats", 1, "--cache", 0.5, "--recipe", "rtn_int4", "--json")
    code, out, _ = run("demo", *words, "--out", tmp_path)
    result = json.loads(out, parse_constant=pytest.fail)["dit"]
    names = [row["name"] for row in result["rows"]]
    assert code == 0 and names[0] == "float fp32" and result["baseline"] in names
    assert names[-3:] == ["4-bit", "cached", "4-bit + cached"]
    low, base = (next(row for row in result["rows"] if row["name"] == name) for name in ("4-bit", result["baseline"]))
    assert low["stored_bytes"] < base["stored_bytes"]
    assert Image.open(result["picture"]).width > 200


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("inspect", "/nowhere"), "model_index.json"),
        (("inspect", DIGITS / "dit", "--recipe", "w3a3"), "svdq_int4"),
        (("generate", DIGITS / "dit", "--call", "{"), "--call needs a JSON object"),
        (("generate", DIGITS / "dit", "--cache", "sometimes"), "cache needs"),
        (("generate", DIGITS / "dit", "--memory", "small"), "memory: one of fast, 4bit needed, got 'small'"),
        (("quantize", DIGITS / "dit", DIGITS), "does not exist yet"),
        (("demo", "--model", "cat"), "--model needs one of"),
    ],
    ids=["no-folder", "no-recipe", "no-json", "no-cache-form", "no-memory", "target-exists", "no-model"],
)
def test_a_mistake_is_one_sentence(run, words, message):
    code, _, err = run(*words)
    text = " ".join(err.split())
    assert code == 1 and message in text and "Traceback" not in text


@pytest.mark.parametrize("command", ["demo", "inspect", "quantize", "generate", "doctor"])
def test_help_has_examples(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0 and "Examples" in out
