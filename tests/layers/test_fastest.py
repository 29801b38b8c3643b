"""The choice between float and INT8 is measured once per machine, and survives what can happen to its file."""

import json

import pytest
import torch

from halfbyte.env import extension
from halfbyte.layers import fastest, merged_branch, prepare, remembered

needs_extension = pytest.mark.skipif(extension() is None, reason="the C++ extension was not built")


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("HALFBYTE_CACHE_DIR", str(tmp_path))
    return tmp_path / remembered.FILE


@pytest.fixture
def counted(monkeypatch):
    calls = []

    def measure(n, k, rank, dtype):
        calls.append((n, k, rank, dtype))
        return {kind: [1e-4 / (1 + i)] * len(fastest.row_counts(n, k)) for i, kind in enumerate(fastest.CANDIDATES[dtype])}

    monkeypatch.setattr(fastest, "measure_kinds", measure)
    return calls


def forget():
    remembered._this_process.clear()


def test_one_measurement_for_each_size(make_linear, file, counted):
    for n in (72, 64, 72):
        assert fastest.fastest_kind(make_linear(n=n).weight)[0] == "int8"
    assert counted == [(72, 128, 0, torch.float32), (64, 128, 0, torch.float32)]
    forget()
    kind, reason = fastest.fastest_kind(make_linear().weight)
    assert len(counted) == 2
    assert kind == "int8" and "float32 100 and 100 us" in reason and "int8 33 and 33 us" in reason


def test_a_branch_beside_int8_is_measured_along(make_linear, file, counted, monkeypatch):
    monkeypatch.setattr(merged_branch, "MERGED_GROWTH", -2)
    fastest.fastest_kind(make_linear().weight)
    assert counted == [(72, 128, 8, torch.float32)]
    assert list(json.loads(file.read_text())[remembered.machine_key()]) == ["linear 72 x 128 rank 8 float32"]


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[1]", '{"machine": 3}', "\x00\x01"],
    ids=["empty", "cut-off", "list", "not-nested", "binary"],
)
def test_a_damaged_file_is_measured_again(make_linear, file, counted, damage):
    file.write_text(damage)
    forget()
    assert fastest.fastest_kind(make_linear().weight)[0] == "int8"
    assert len(counted) == 1
    assert list(json.loads(file.read_text())[remembered.machine_key()]) == ["linear 72 x 128 float32"]


WRONG = [
    {},
    {"float32": [1.0, 1.0]},
    {"float32": [1.0], "bfloat16": [1.0], "int8": [1.0]},
    {"float32": [1.0, 1.0], "bfloat16": [1.0, 1.0], "int8": [-1.0, 1.0]},
    {"float32": [1, 1], "bfloat16": ["1", 1], "int8": [1, 1]},
    "int8",
]


@pytest.mark.parametrize("value", WRONG, ids=str)
def test_a_value_of_another_shape_is_measured_again(make_linear, file, counted, value):
    file.write_text(json.dumps({remembered.machine_key(): {"linear 72 x 128 float32": value}, "another machine": {"key": 1}}))
    forget()
    assert fastest.fastest_kind(make_linear().weight)[0] == "int8"
    assert len(counted) == 1
    assert json.loads(file.read_text())["another machine"] == {"key": 1}


def test_an_unwritable_folder_measures_once_per_process(make_linear, tmp_path, monkeypatch, counted):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HALFBYTE_CACHE_DIR", str(tmp_path / "file" / "folder"))
    forget()
    for _ in range(2):
        fastest.fastest_kind(make_linear().weight)
    assert len(counted) == 1


@pytest.mark.parametrize(
    ("times", "kind"),
    [
        ({"float32": [10.0, 100.0], "bfloat16": [8.0, 50.0], "int8": [9.0, 20.0]}, "bfloat16"),
        ({"float32": [10.0, 100.0], "bfloat16": [12.0, 50.0], "int8": [8.0, 20.0]}, "int8"),
        ({"float32": [10.0, 100.0], "bfloat16": [9.5, 95.0], "int8": [11.0, 20.0]}, "float32"),
        ({"bfloat16": [10.0], "float32": [20.0], "int8": [7.0]}, "int8"),
    ],
)
def test_a_coarser_kind_must_save_time_at_every_size(times, kind):
    assert fastest.choose(times) == kind


def test_the_measurement_itself(make_linear, file, monkeypatch):
    monkeypatch.setattr(fastest, "load_guard", lambda: None)
    threads = torch.get_num_threads()
    report = prepare(make_linear())
    assert torch.get_num_threads() == threads
    (times,) = json.loads(file.read_text())[remembered.machine_key()].values()
    assert tuple(times) == fastest.CANDIDATES[torch.float32]
    assert all(0 < seconds < 10 for row in times.values() for seconds in row)
    assert report.layers[0].reason.startswith("measured at 72 x 128 with 64 and 1024 rows: float32 ")


@needs_extension
def test_a_convolution_runs_int8_where_that_is_faster(make_conv, file, monkeypatch):
    monkeypatch.setattr(fastest, "load_guard", lambda: None)
    (kind, reason), shape = fastest.fastest_kind(make_conv().weight), (24, 64, 3, 3)
    ((key, times),) = json.loads(file.read_text())[remembered.machine_key()].items()
    assert key == "convolution 24 x 64 x 3 x 3 float32" and tuple(times) == ("float32", "int8")
    assert kind == fastest.choose(times)
    assert reason.startswith("measured at 24 x 64 x 3 x 3 with 1 and 16 images of 8 x 8: float32 ")
    assert len(times["int8"]) == len(fastest.image_counts(shape)) == 2


@needs_extension
def test_a_convolution_whose_branch_stays_beside_is_not_measured(make_conv, file, monkeypatch):
    monkeypatch.setattr(merged_branch, "MERGED_GROWTH", -2)
    assert fastest.fastest_kind(make_conv().weight) == ("float32", "its low-rank branch does not merge into INT8")
    assert not file.exists()


def test_layers_with_one_way_to_run_are_not_measured(make_linear, make_conv, counted):
    for module in (make_conv(dtype=torch.float16), make_conv(activation=None), make_linear(activation=None), make_linear(dtype=torch.float64)):
        assert fastest.fastest_kind(module.weight)[0] == str(module.weight.dtype).removeprefix("torch.")
    assert counted == []


def test_a_busy_machine_keeps_the_compute_dtype_and_measures_later(make_linear, file, monkeypatch):
    monkeypatch.setattr(fastest, "load_guard", lambda: "others are at work")
    forget()
    kind, reason = fastest.fastest_kind(make_linear().weight)
    assert kind == "float32" and "others are at work" in reason
    assert not file.exists()
