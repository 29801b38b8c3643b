import json
import random
import struct

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from halfbyte.checkpoint import CheckpointError, read_header, read_headers
from halfbyte.checkpoint import header as header_module


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(
        {
            "a.qweight": torch.zeros(3, 5, dtype=torch.int8),
            "a.wscales": torch.ones(1, 3, dtype=torch.bfloat16),
            "b.wscales": torch.ones(7).to(torch.float8_e4m3fn),
            "empty": torch.zeros(0, 4),
            "scalar": torch.tensor(2.0),
        },
        path,
        metadata={"format": "pt"},
    )
    return path


def test_reads_what_safetensors_wrote(file):
    tensors = read_header(file)
    with safe_open(file, "pt") as reference:
        assert set(tensors) == set(reference.keys())
        for name, info in tensors.items():
            tensor = reference.get_tensor(name)
            assert (info.shape, info.dtype, info.bytes) == (tuple(tensor.shape), tensor.dtype, tensor.nbytes)


def entry(start, end, dtype="I8", shape=None):
    return {"dtype": dtype, "shape": [end - start] if shape is None else shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (
            b'{"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}}',
            1,
            "'a' .*twice",
        ),
        (b'{"a":{"dtype":"I8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1, "'dtype' .*twice"),
        ({"../../etc/x": entry(0, 1)}, 1, "name .*'../../etc/x'"),
        ({"a..b": entry(0, 1)}, 1, "name"),
        ({"a\x1b[31m": entry(0, 1)}, 1, r"name .*\\x1b"),
        ({"n" * 300: entry(0, 1)}, 1, "name"),
        ({"a": entry(0, 1, dtype="F4")}, 1, "tensor a needs a dtype .*'F4'"),
        ({"a": entry(0, 1, dtype=["I8"])}, 1, "tensor a needs a dtype"),
        ({"a": entry(0, 1, shape=[-1])}, 1, "shape"),
        ({"a": entry(0, 1, shape=[True])}, 1, "shape"),
        ({"a": entry(0, 1, shape=[1] * 9)}, 1, "at most 8 sizes"),
        ({"a": entry(0, 1, shape=[2**47, 2**47])}, 1, "bytes apart"),
        ({"a": entry(0, 2, shape=[1])}, 2, "1 bytes apart"),
        ({"a": {**entry(0, 1), "more": 1}}, 1, "needs dtype, shape and data_offsets"),
        ({"a": 7}, 0, "needs dtype"),
        ({"a": entry(0, 2), "b": entry(1, 3)}, 3, "tensor b must start at data byte 2"),
        ({"a": entry(0, 2), "b": entry(3, 4)}, 4, "tensor b must start at data byte 2"),
        ({"a": entry(0, 2)}, 3, "2 bytes of data are needed, the file has 3"),
        ({"a": entry(0, 2)}, 1, "2 bytes of data are needed, the file has 1"),
        ({"__metadata__": {"format": 3}}, 0, "__metadata__"),
        (b"[1, 2]", 0, "JSON object"),
        (b"{", 0, "JSON"),
        (b"\xff\xfe", 0, "JSON"),
        (b"[" * 200_000, 0, "JSON"),
    ],
    ids=lambda value: None if isinstance(value, int) else str(value)[:24],
)
def test_refuses_in_one_sentence(tools, tmp_path, header, data, message):
    path = tmp_path / "bad.safetensors"
    tools.write_raw(path, header, b"\0" * data)
    with pytest.raises(CheckpointError, match=message) as error:
        read_header(path)
    text = str(error.value)
    assert text.startswith("bad.safetensors: ") and text.isprintable() and len(text) < 400


@pytest.mark.parametrize("blob", [b"", b"\1\0\0", struct.pack("<Q", 2**62) + b"{}", struct.pack("<Q", 3) + b"{}"])
def test_refuses_a_header_that_is_not_there(tmp_path, blob):
    (tmp_path / "bad.safetensors").write_bytes(blob)
    with pytest.raises(CheckpointError, match="length field"):
        read_header(tmp_path / "bad.safetensors")


def test_limits_come_before_the_work(tools, tmp_path, monkeypatch):
    path = tmp_path / "many.safetensors"
    tools.write_raw(path, {f"t{i}": entry(0, 0) for i in range(100)})
    monkeypatch.setattr(header_module, "MAX_TENSORS", 99)
    with pytest.raises(CheckpointError, match="at most 99 tensors are accepted, the header lists 100"):
        read_header(path)
    monkeypatch.setattr(header_module, "MAX_HEADER_BYTES", 1000)
    monkeypatch.setattr(header_module.json, "loads", lambda *args, **kwargs: pytest.fail("parsed a header over the limit"))
    with pytest.raises(CheckpointError, match="at most 1000 bytes"):
        read_header(path)


def test_a_name_in_two_shards(file, tmp_path):
    save_file({"scalar": torch.tensor(3.0)}, tmp_path / "y.safetensors")
    with pytest.raises(CheckpointError, match="tensor scalar is needed once"):
        read_headers([file, tmp_path / "y.safetensors"])


def test_mutated_headers_are_refused_or_mean_the_same_to_the_library(file, tmp_path):
    blob, rng = file.read_bytes(), random.Random(0)
    (length,) = struct.unpack("<Q", blob[:8])
    path, refused = tmp_path / "x.safetensors", 0
    for _ in range(400):
        mutated = bytearray(blob)
        for _ in range(rng.choice([1, 1, 2, 5])):
            at = rng.randrange(8 + length)
            mutated[at] = rng.choice([rng.randrange(256), ord(rng.choice('0123456789[]{},":'))])
        if rng.random() < 0.1:
            del mutated[rng.randrange(len(mutated)) :]
        path.write_bytes(mutated)
        try:
            tensors = read_header(path)
        except CheckpointError:
            refused += 1
            continue
        try:
            with safe_open(path, "pt") as reference:
                assert {name: list(info.shape) for name, info in tensors.items()} == {
                    name: reference.get_slice(name).get_shape() for name in reference.keys()
                }
        except SafetensorError:
            pytest.fail(f"accepted what safetensors refuses: {bytes(mutated[8 : 8 + length])!r}")
    assert 200 < refused < 400


def test_error_never_repeats_a_long_header(tools, tmp_path):
    tools.write_raw(tmp_path / "bad.safetensors", {"a": {"dtype": "x" * 100_000, "shape": [], "data_offsets": [0, 0]}})
    with pytest.raises(CheckpointError) as error:
        read_header(tmp_path / "bad.safetensors")
    assert len(str(error.value)) < 300 and json.dumps(str(error.value))
