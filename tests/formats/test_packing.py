import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from halfbyte.formats import pack_nibbles, unpack_nibbles


@settings(max_examples=60, deadline=None)
@given(data=st.data(), signed=st.booleans(), rows=st.integers(0, 5), half=st.integers(0, 33))
def test_pack_then_unpack_gives_the_codes_back(data, signed, rows, half):
    low, high = (-8, 7) if signed else (0, 15)
    count = rows * half * 2
    codes = data.draw(st.lists(st.integers(low, high), min_size=count, max_size=count))
    codes = torch.tensor(codes, dtype=torch.int8).reshape(rows, 2 * half)
    packed = pack_nibbles(codes)
    assert packed.dtype == torch.int8 and packed.shape == (rows, half)
    assert torch.equal(unpack_nibbles(packed, signed), codes)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(min_size=1, max_size=64), signed=st.booleans())
def test_every_byte_survives_unpack_then_pack(data, signed):
    packed = torch.frombuffer(bytearray(data), dtype=torch.int8)
    assert torch.equal(pack_nibbles(unpack_nibbles(packed, signed)), packed)


def test_the_low_nibble_is_the_even_column():
    assert pack_nibbles(torch.tensor([[1, -2]])).item() == np.array(0xE1, np.uint8).view(np.int8)


def test_signed_codes_agree_with_ml_dtypes_int4():
    byte_values = np.arange(256, dtype=np.uint8)
    ours = unpack_nibbles(torch.from_numpy(byte_values.view(np.int8)).unsqueeze(-1), signed=True).numpy()
    nibbles = np.stack([byte_values & 15, byte_values >> 4], -1).astype(np.uint8)
    assert (ours == nibbles.view(ml_dtypes.int4).astype(np.int8)).all()


def test_odd_k_is_refused():
    with pytest.raises(ValueError, match="codes: the last dimension must be even .* got 63"):
        pack_nibbles(torch.zeros(2, 63, dtype=torch.int8))


def test_float_bytes_are_refused():
    with pytest.raises(ValueError, match="packed: dtype int8 needed, got torch.uint8"):
        unpack_nibbles(torch.zeros(4, dtype=torch.uint8), True)
