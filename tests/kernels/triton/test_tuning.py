"""Configurations: found without a search, kept whole, checked before they are kept, and no broken file stops a call."""

from __future__ import annotations

import json
import sys
import threading
import warnings
from dataclasses import dataclass

import pytest
import torch

pytest.importorskip("triton")

from halfbyte.cli import main
from halfbyte.ops import OPS, use_backend
from halfbyte.testing import LAYER_SHAPES, Inputs, Shape, calls_of
from halfbyte.testing.triton.tune import tunable_ops, tune_call
from halfbyte.triton_kernels import search, tuned_files, tuning

GPU = torch.device("cuda", 0)


@dataclass(frozen=True)
class Config:
    BLOCK_M: int
    num_warps: int
    PERSISTENT: bool = False


DEFAULT, FASTER = Config(64, 4), Config(128, 8, PERSISTENT=True)
RESULTS = {DEFAULT: 1.0, FASTER: 2.0, Config(32, 2): 1.0, Config(16, 1): None}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache folder on a machine that says it has an H200."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    before = tuning.cache_folder()
    tuning.set_cache_folder(tmp_path / "triton")
    tuned_files._warn.cache_clear()
    yield tmp_path / "triton"
    tuning.set_cache_folder(before)


def looked_up(m=4096, n=3072, k=3072, op="gemm", dtype="int8"):
    return tuning.config_for(op, GPU, dtype, m, n, k, lambda *sizes: DEFAULT, lambda *sizes: RESULTS)


def requested(m=4096):
    return tuning.Request("gemm", GPU, "int8", m, 3072, 3072, DEFAULT, lambda *sizes: RESULTS)


def test_what_was_measured_serves_the_rows_up_to_the_next_power_of_two(folder):
    assert looked_up() is DEFAULT
    path = tuning.remember({requested(): FASTER})
    assert path == folder / "NVIDIA_H200.json"
    assert looked_up(4096) == looked_up(2049) == FASTER
    assert looked_up(2048) == looked_up(4097) == looked_up(n=3080) == looked_up(dtype="fp8") == looked_up(op="conv2d") == DEFAULT


def test_a_file_is_read_once(folder, monkeypatch):
    tuning.remember({requested(): FASTER})
    assert looked_up() == FASTER
    monkeypatch.setattr(tuning, "read_configs", None)
    assert looked_up() == looked_up(4000) == FASTER


def test_the_user_comes_before_what_is_shipped_and_that_before_the_default(folder, tmp_path, monkeypatch):
    shipped = tmp_path / "defaults"
    monkeypatch.setattr(tuning, "SHIPPED", shipped)
    tuned_files.write_configs(shipped / "sm_90.json", {requested().key: Config(32, 2)})
    assert looked_up() == Config(32, 2)
    tuning.remember({requested(): FASTER})
    assert looked_up() == FASTER


def test_a_tuned_file_keeps_what_was_in_it(folder):
    for m in (16, 256, 4096):
        tuning.remember({requested(m): Config(m, 4)})
    assert [looked_up(m) for m in (16, 256, 4096)] == [Config(m, 4) for m in (16, 256, 4096)]
    assert [path.name for path in folder.iterdir()] == ["NVIDIA_H200.json"]


BROKEN = {
    "cut off": '{"triton": "',
    "a list": "[]",
    "no configs": json.dumps({"triton": tuned_files.triton.__version__}),
    "a text for a number": json.dumps(
        {"triton": tuned_files.triton.__version__, "configs": {requested().key: {"BLOCK_M": "64", "num_warps": 4, "PERSISTENT": False}}}
    ),
    "another field": json.dumps({"triton": tuned_files.triton.__version__, "configs": {requested().key: {"BLOCK_N": 64, "num_warps": 4, "PERSISTENT": False}}}),
    "a number for a flag": json.dumps(
        {"triton": tuned_files.triton.__version__, "configs": {requested().key: {"BLOCK_M": 64, "num_warps": 4, "PERSISTENT": 1}}}
    ),
    "no bytes of text": "\udcff",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_ignored_with_one_warning(folder, content):
    folder.mkdir()
    (folder / "NVIDIA_H200.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.warns(UserWarning, match="NVIDIA_H200.json: ignored") as seen:
        assert looked_up() == looked_up(16) == looked_up() == DEFAULT
    assert len(seen) == 1


def test_another_tritons_file_is_not_used(folder):
    folder.mkdir()
    content = {"triton": "2.0.0", "configs": {requested().key: vars(FASTER)}}
    (folder / "NVIDIA_H200.json").write_text(json.dumps(content))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert looked_up() == DEFAULT


def test_no_folder_no_file(folder):
    tuning.set_cache_folder(None)
    assert looked_up() == DEFAULT
    with pytest.raises(ValueError, match="a folder needed to keep configurations in, got None"):
        tuning.remember({requested(): FASTER})


def test_a_trial_is_of_one_op_and_one_thread(folder):
    seen = []
    with tuning.trying("gemm", FASTER):
        assert looked_up() == FASTER and looked_up(op="conv2d") == DEFAULT
        thread = threading.Thread(target=lambda: seen.append(looked_up()))
        thread.start()
        thread.join()
    assert seen == [DEFAULT] and looked_up() == DEFAULT


def test_the_fastest_that_gives_the_right_result_wins(folder):
    milliseconds = {DEFAULT: 3.0, FASTER: 1.0, Config(32, 2): 2.0}

    def call():
        if RESULTS[looked_up()] is None:
            raise RuntimeError("out of resources: shared memory")
        return RESULTS[looked_up()]

    tried = list(search.trials(call, requested(), lambda got: None if got == 1.0 else "wrong", lambda call: milliseconds[looked_up()]))
    assert [trial.config for trial in tried] == list(RESULTS)
    assert [trial.reason for trial in tried] == [None, "wrong", None, "RuntimeError: out of resources: shared memory"]
    assert search.fastest(tried).config == Config(32, 2)
    assert search.fastest(tried[1:2]) is None


def test_an_op_is_tuned_over_its_space_once():
    inputs = Inputs(torch.bfloat16)
    args = (inputs.normal(9, 64), None, *inputs.weight(24, 64, "int4"), None, *inputs.companions(9, 24, 0, False), torch.bfloat16)
    known, counts = set(), iter(range(100, 0, -1))
    (tuned,) = tune_call("gemm_w4a16", args, known, lambda call: float(next(counts)))
    assert len(tuned.tried) == len(tuned.request.space) > 3 and all(trial.reason is None for trial in tuned.tried)
    assert tuned.best is tuned.tried[-1] and tuned.speedup > 1
    assert known == {"gemm_w4a16 int4-bfloat16 16 24 64"}
    assert list(tune_call("gemm_w4a16", args, known)) == []


def test_a_configuration_that_gives_another_result_is_not_kept(monkeypatch):
    inputs = Inputs(torch.bfloat16)
    args = (inputs.normal(9, 64), None, *inputs.weight(24, 64, "int4"), None, *inputs.companions(9, 24, 0, False), torch.bfloat16)
    target = OPS["gemm_w4a16"].targets["triton"]

    def wrong_when_wide(*args):
        with tuning.listening() as heard:
            y = target(*args)
        chosen = tuning._trials.get().get("gemm_w4a16", heard[0].default)
        return y + (chosen.BLOCK_N > 64)

    monkeypatch.setitem(OPS["gemm_w4a16"].targets, "triton", wrong_when_wide)
    (tuned,) = tune_call("gemm_w4a16", args, set(), lambda call: 1.0)
    refused = [trial for trial in tuned.tried if trial.reason]
    assert refused and all(trial.config.BLOCK_N > 64 and "is over the bfloat16 limit" in trial.reason for trial in refused)


@pytest.mark.parametrize("op", tunable_ops())
def test_spaces_are_small_and_without_repetition(op):
    with tuning.listening() as heard, use_backend("triton"):
        for args in calls_of(op, Shape("small", 5, 128, 128)).values():
            OPS[op](*args)
    for request in heard:
        for m, n, k in {(shape.m, shape.n, shape.k) for shape in LAYER_SHAPES}:
            for capability in ((8, 0), (8, 9), (9, 0), (10, 0), (12, 0)):
                space = tuple(request.configs(m, n, k, capability))
                assert len(set(space)) == len(space) <= 36
                assert {type(config) for config in space} == {type(request.default)}


def test_the_command_needs_a_gpu_and_says_so(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["halfbyte", "tune", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, " ".join(capsys.readouterr().err.split())

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run() == (1, "error: a GPU is needed to measure kernels on, and none was found")
    assert run("--shape", "4096,3072") == (1, "error: --shape: three positive integers M,N,K needed, got '4096,3072'")
    assert run("--dtype", "int8") == (1, "error: --dtype: bfloat16 or float16 needed, got 'int8'")
    assert run("--help")[0] == 0


def test_calls_find_the_folder_without_being_told(folder, monkeypatch):
    from halfbyte.ops.triton import tuned

    tuned.hand_in_cache_folder.cache_clear()
    monkeypatch.setenv("HALFBYTE_CACHE_DIR", str(folder / "given"))
    inputs = Inputs(torch.bfloat16)
    args = (inputs.normal(1, 64), None, *inputs.weight(8, 64, "int4"), None, *inputs.companions(1, 8, 0, False), torch.bfloat16)
    with use_backend("triton"):
        OPS["gemm_w4a16"](*args)
    assert tuning.cache_folder() == folder / "given" / "triton"
    tuned.hand_in_cache_folder.cache_clear()
