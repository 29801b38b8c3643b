"""cvt between integers, floats and small floats, against numpy, PyTorch and ml_dtypes."""

import ml_dtypes
import numpy as np
import pytest
import torch

RNG = np.random.default_rng(1)
BITS = RNG.integers(0, 2**32, 20000, dtype=np.uint64).astype(np.uint32)
SPECIAL = np.float32(
    [0.0, -0.0, 1.0, np.inf, -np.inf, np.nan, 1e-45, 65504, 65520, -65520, 448, 464, 465, -480, 1e-7, 6, 5, -7, 0.25]
)
# Around the range of the small floats, with every tie between two of their values.
NEAR = (np.arange(-40000, 40000) / 2**11).astype(np.float32)
FLOATS = np.concatenate([SPECIAL, BITS.view(np.float32), NEAR, RNG.standard_normal(5000).astype(np.float32)])


def as_torch(x, dtype):
    """Rounded by PyTorch, NaN as a GPU writes it."""
    bits = torch.from_numpy(x).to(dtype).view(torch.int16).numpy().view(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FFF), bits)


HALVES = {"f16": torch.float16, "bf16": torch.bfloat16}


@pytest.mark.parametrize("name", HALVES)
def test_to_16_bits_rounds_to_nearest_even(evaluate, name):
    np.testing.assert_array_equal(evaluate(f"cvt.rn.{name}.f32 d, a", "u2", FLOATS), as_torch(FLOATS, HALVES[name]))
    pair = evaluate(f"cvt.rn.{name}x2.f32 d, a, b", "u4", FLOATS, FLOATS[::-1].copy())
    np.testing.assert_array_equal(pair & 0xFFFF, as_torch(FLOATS[::-1].copy(), HALVES[name]))
    np.testing.assert_array_equal(pair >> 16, as_torch(FLOATS, HALVES[name]))


@pytest.mark.parametrize("name", HALVES)
def test_from_16_bits_is_exact(evaluate, name):
    codes = np.arange(2**16, dtype=np.uint16)
    got = evaluate(f"cvt.f32.{name} d, a", "f4", codes)
    want = torch.from_numpy(codes.view(np.int16)).view(HALVES[name]).float().numpy()
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("operation", ["add", "mul", "fma"])
def test_16_bit_arithmetic_rounds_once(evaluate, name, operation):
    codes = RNG.integers(0, 2**16, (3, 20000)).astype(np.uint16)
    x, y, z = (torch.from_numpy(c.view(np.int16)).view(HALVES[name]).double() for c in codes)
    count = 3 if operation == "fma" else 2
    got = evaluate(f"{operation}.rn.{name} d, {', '.join('abc'[:count])}", "u2", *codes[:count])
    pairs = [np.ascontiguousarray(code).view(np.uint32) for code in codes[:count]]
    packed = evaluate(f"{operation}.rn.{name}x2 d, {', '.join('abc'[:count])}", "u4", *pairs)
    exact = {"add": x + y, "mul": x * y, "fma": x * y + z}[operation]
    # Nearest: no neighbour of the result is closer to the exact value, which a float64 holds but for sums of very unlike floats.
    result = torch.from_numpy(got.view(np.int16)).view(HALVES[name]).double()
    usable = exact.isfinite() & result.isfinite() & (exact.abs() > 1e-30)
    for step in (-1, 1):
        neighbour = torch.from_numpy((got.view(np.int16) + step).astype(np.int16)).view(HALVES[name]).double()
        closer = (neighbour - exact).abs() < (result - exact).abs()
        assert not (closer & usable & neighbour.isfinite()).any()
    assert usable.sum() > 5000
    np.testing.assert_array_equal(packed.view(np.uint16), got)


SMALL = {"e4m3": (ml_dtypes.float8_e4m3fn, 448), "e5m2": (ml_dtypes.float8_e5m2, 57344), "e2m1": (ml_dtypes.float4_e2m1fn, 6)}


@pytest.mark.parametrize("name", SMALL)
def test_to_small_floats_saturates(evaluate, name):
    dtype, largest = SMALL[name]
    numbers = FLOATS[~np.isnan(FLOATS)]
    bits = 4 if name == "e2m1" else 8
    got = evaluate(f"cvt.rn.satfinite.{name}x2.f32 d, a, b", "u2" if bits == 8 else "u1", numbers, -numbers)
    want = np.clip(numbers, -largest, largest).astype(dtype).view(np.uint8)
    np.testing.assert_array_equal(got >> bits, want & (2**bits - 1))
    np.testing.assert_array_equal(got & (2**bits - 1), want & (2**bits - 1) ^ (1 << (bits - 1)))


def test_nan_to_small_floats(evaluate):
    nan = np.float32([np.nan])
    assert evaluate("cvt.rn.satfinite.e4m3x2.f32 d, a, a", "u2", nan) == 0x7F7F
    assert evaluate("cvt.rn.satfinite.e2m1x2.f32 d, a, a", "u1", nan) == 0x77


@pytest.mark.parametrize("name", ["e4m3", "e5m2", "e2m1"])
def test_from_small_floats_is_exact(evaluate, name):
    codes = np.arange(256, dtype=np.uint8 if name == "e2m1" else np.uint16)
    bits = 4 if name == "e2m1" else 8
    got = evaluate(f"cvt.rn.f16x2.{name}x2 d, a", "u4", codes)
    want = (codes & (2**bits - 1)).astype(np.uint8).view(SMALL[name][0]).astype(np.float16)
    np.testing.assert_array_equal((got & 0xFFFF).astype(np.uint16).view(np.float16), want)


@pytest.mark.parametrize("type", ["s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64"])
def test_floats_to_integers_clamp(evaluate, type):
    size = int(type[1:]) // 8
    info = np.iinfo(f"{'i' if type[0] == 's' else 'u'}{size}")
    numbers = np.nan_to_num(FLOATS, nan=0.0, posinf=1e30, neginf=-1e30).astype(np.float64)
    rounded = [min(max(int(number), info.min), info.max) for number in np.rint(numbers).tolist()]
    got = evaluate(f"cvt.rni.{type}.f32 d, a", f"{info.dtype.kind}{max(size, 2)}", FLOATS)
    np.testing.assert_array_equal(got, np.array(rounded, info.dtype))


@pytest.mark.parametrize("type", ["s16", "s32", "u32", "s64", "u64"])
def test_integers_to_floats_round_to_nearest(evaluate, type):
    dtype = np.dtype(f"{'i' if type[0] == 's' else 'u'}{int(type[1:]) // 8}")
    values = RNG.integers(0, 2**63, 4000, dtype=np.uint64).astype(dtype)
    np.testing.assert_array_equal(evaluate(f"cvt.rn.f32.{type} d, a", "f4", values), values.astype(np.float32))


def test_integers_extend_truncate_and_saturate(evaluate):
    values = np.int32([0, -1, 127, 128, -129, 70000, -70000, 2**31 - 1])
    np.testing.assert_array_equal(evaluate("cvt.s64.s32 d, a", "i8", values), values)
    np.testing.assert_array_equal(evaluate("cvt.u64.u32 d, a", "u8", values), values.view(np.uint32))
    np.testing.assert_array_equal(evaluate("cvt.s32.s8 d, a", "i4", values), values.astype(np.int8))
    np.testing.assert_array_equal(evaluate("cvt.u16.u32 d, a", "u2", values), values.astype(np.uint16))
    np.testing.assert_array_equal(evaluate("cvt.sat.s8.s32 d, a", "i2", values), np.clip(values, -128, 127))
    np.testing.assert_array_equal(evaluate("cvt.sat.u8.s32 d, a", "u2", values), np.clip(values, 0, 255))
    packed = evaluate("cvt.pack.sat.s8.s32.b32 d, a, b, 7", "u4", values, values[::-1].copy())
    parts = np.ascontiguousarray(packed).view(np.int8).reshape(-1, 4)
    np.testing.assert_array_equal(parts[:, 0], np.clip(values[::-1], -128, 127))
    np.testing.assert_array_equal(parts[:, 1], np.clip(values, -128, 127))
    np.testing.assert_array_equal(parts[:, 2], 7)


def test_registers_are_split_and_joined(evaluate):
    values = BITS[:100]
    swap = "{ .reg .b16 low, high; mov.b32 {low, high}, a; mov.b32 d, {high, low}; }"
    np.testing.assert_array_equal(evaluate(swap, "u4", values), values >> 16 | values << 16)
    twice = "mov.b64 d, {a, b}"
    np.testing.assert_array_equal(
        evaluate(twice, "u8", values, values[::-1].copy()), values[::-1].astype(np.uint64) << 32 | values
    )
