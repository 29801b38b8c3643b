"""Conversions bit for bit against ml_dtypes and numpy, over every code and the floats around every rounding boundary."""

import math

import ml_dtypes
import numpy as np
import pytest
import torch

from halfbyte.formats.nvfp4 import e2m1_encode

QUIET_NAN = 0x7FFF  # what cvt and PyTorch on a GPU write for a 16-bit NaN
NARROW = {"Half": np.float16, "Bfloat": ml_dtypes.bfloat16}


def every(bits, dtype):
    return np.arange(2**bits, dtype=f"uint{bits}").view(dtype)


@pytest.fixture(scope="module")
def floats():
    """float32: every float16 and bfloat16, the points halfway between neighbours, and the floats on either side of all."""
    grids = [np.sort(grid[np.isfinite(grid)]) for grid in (every(16, dtype).astype(np.float32) for dtype in NARROW.values())]
    with np.errstate(over="ignore"):
        points = np.concatenate([*grids, *((grid[1:] / 2 + grid[:-1] / 2) for grid in grids)])
        points = np.concatenate([points, np.nextafter(points, np.float32(np.inf)), np.nextafter(points, np.float32(-np.inf))])
    random = np.random.default_rng(0).integers(0, 2**32, 200_000, np.uint32).view(np.float32)
    return np.concatenate([points, random, np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan], np.float32)])


@pytest.mark.parametrize("name", NARROW)
def test_to_16_bits(checks, floats, name):
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = floats.astype(NARROW[name]).view(np.uint16)
    wanted = np.where(np.isnan(floats), QUIET_NAN, wanted)
    assert (checks.convert(f"from_float<{name}>", floats, np.uint16) == wanted).all()
    pairs = checks.convert(f"pack2<{name}>", floats, np.uint32)
    assert (pairs & 0xFFFF == wanted).all()
    assert (pairs >> 16 == np.where(np.isnan(floats), QUIET_NAN, wanted ^ 0x8000)).all()


@pytest.mark.parametrize("name", NARROW)
def test_from_16_bits(checks, name):
    codes = every(16, np.uint16)
    wanted = codes.view(NARROW[name]).astype(np.float32)
    for got in (
        checks.convert(f"to_float<{name}>", codes, np.float32),
        checks.convert(f"unpack2<{name}>", codes.astype(np.uint32), np.float32),
    ):
        assert (np.isnan(got) == np.isnan(wanted)).all()
        assert (got.view(np.uint32) == wanted.view(np.uint32))[~np.isnan(wanted)].all()


def test_to_e4m3_saturates(checks, floats):
    with np.errstate(invalid="ignore"):
        wanted = np.clip(floats, -448, 448).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    wanted = np.where(np.isnan(floats), np.where(np.signbit(floats), 0xFF, 0x7F), wanted)
    assert (checks.convert("to_e4m3", floats, np.uint8) == wanted).all()


def test_from_e4m3(checks):
    codes = every(8, np.uint8)
    wanted = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    got = checks.convert("from_e4m3", codes, np.float32)
    assert (np.isnan(got) == np.isnan(wanted)).all()
    assert (got.view(np.uint32) == wanted.view(np.uint32))[~np.isnan(wanted)].all()


def test_to_e2m1(checks, floats):
    got = checks.convert("to_e2m1", floats, np.uint8)
    assert (got == e2m1_encode(torch.from_numpy(floats)).numpy()).all()
    finite = floats[~np.isnan(floats)]
    assert (got[~np.isnan(floats)] == np.clip(finite, -6, 6).astype(ml_dtypes.float4_e2m1fn).view(np.uint8)).all()


def test_from_e2m1_reads_four_bits(checks):
    codes = np.arange(64, dtype=np.uint32)
    wanted = (codes & 15).astype(np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    assert (checks.convert("from_e2m1", codes, np.float32).view(np.uint32) == wanted.view(np.uint32)).all()


@pytest.mark.parametrize("name", ["exp", "tanh", "erf"])
def test_functions_are_within_two_units_in_the_last_place(checks, name):
    ranges = [np.linspace(-110, 95, 400_001), np.linspace(-5, 5, 400_001), np.geomspace(1e-40, 1e-2, 10_001)]
    x = np.concatenate(ranges).astype(np.float32)
    function = {"exp": np.exp, "tanh": np.tanh, "erf": np.vectorize(math.erf)}[name]
    with np.errstate(over="ignore"):
        wanted = function(x.astype(np.float64))
        rounded = wanted.astype(np.float32)
    got = checks.convert(name, x, np.float32)
    finite = np.isfinite(rounded)
    assert (got[~finite] == rounded[~finite]).all()
    assert (np.abs(got - wanted)[finite] <= 2 * np.spacing(np.abs(rounded[finite]))).all()


@pytest.mark.parametrize(
    ("name", "ends"), [("exp", [math.inf, 0.0, 1.0, 1.0]), ("tanh", [1.0, -1.0, 0.0, -0.0]), ("erf", [1.0, -1.0, 0.0, -0.0])]
)
def test_functions_at_infinity_zero_and_nan(checks, name, ends):
    x = np.array([np.inf, -np.inf, 0.0, -0.0, np.nan], np.float32)
    got = checks.convert(name, x, np.float32)
    assert (got[:4].view(np.uint32) == np.array(ends, np.float32).view(np.uint32)).all()
    assert np.isnan(got[4])
