"""Each instruction's host twin against its definition: fragments as in PTX ISA 9.7.14.5, written out lane by lane."""

import ml_dtypes
import numpy as np
import pytest

REGISTERS = np.dtype([("a", "<u4", 4), ("b", "<u4", 2), ("d", "<u4", 4), ("sfa", "<u4"), ("sfb", "<u4")])
LANES = np.arange(32)
G, Q = LANES // 4, LANES % 4


def nibbles(words):
    return np.stack([words >> 4 * i & 15 for i in range(8)], -1)


def signed_nibbles(words):
    return nibbles(words).astype(np.int64) - 16 * (nibbles(words) > 7)


def elements(dtype):
    return lambda words: np.ascontiguousarray(words)[..., None].view(dtype).astype(np.float64)


def signed_bytes(words):
    return np.ascontiguousarray(words)[..., None].view(np.int8).astype(np.int64)


E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
UNPACK = {
    "mma_s4": (signed_nibbles, signed_nibbles),
    "mma_u4s4": (lambda words: nibbles(words).astype(np.int64), signed_nibbles),
    "mma_s8": (signed_bytes, signed_bytes),
    "mma_e4m3": (elements(ml_dtypes.float8_e4m3fn),) * 2,
    "mma_e4m3_unit_scaled": (elements(ml_dtypes.float8_e4m3fn),) * 2,
    "mma_16bit<Half>": (elements(np.float16),) * 2,
    "mma_16bit<Bfloat>": (elements(ml_dtypes.bfloat16),) * 2,
}
INTEGER = ["mma_s4", "mma_u4s4", "mma_s8"]
FLOAT = [name for name in UNPACK if name not in INTEGER]


def matrices(registers, unpack_a, unpack_b):
    """A [16, K] and B [8, K] from the lanes' fragments; a word holds 4 bytes of K."""
    a, b = unpack_a(registers["a"]), unpack_b(registers["b"])
    per_word = a.shape[-1]
    rows, columns = np.zeros((16, 8, per_word), a.dtype), np.zeros((8, 8, per_word), b.dtype)
    for i, (row, word) in enumerate([(0, 0), (8, 0), (0, 4), (8, 4)]):
        rows[G + row, Q + word] = a[:, i]
    for i, word in enumerate([0, 4]):
        columns[G, Q + word] = b[:, i]
    return rows.reshape(16, -1), columns.reshape(8, -1)


def fragments(product):
    """[16, 8] -> [lane, 4]."""
    return np.stack([product[G, 2 * Q], product[G, 2 * Q + 1], product[G + 8, 2 * Q], product[G + 8, 2 * Q + 1]], 1)


def random_registers(checks, seed, finite=None):
    random = np.random.default_rng(seed)
    registers = checks.zeros(32, REGISTERS)
    for field in ("a", "b", "d"):
        registers[field] = random.integers(0, 2**32, registers[field].shape, np.uint32)
    if finite is not None:
        for field in ("a", "b"):
            values = random.standard_normal((32, registers[field].shape[1], 4 // np.dtype(finite).itemsize)) * 4
            registers[field] = values.astype(finite).view(np.uint32)[..., 0]
        registers["d"] = random.standard_normal((32, 4)).astype(np.float32).view(np.uint32)
    return registers


def run(checks, name, registers, dtype):
    d = checks.zeros(128, dtype)
    assert checks.run(name, registers, d, races=True) == ""
    return d.reshape(32, 4)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", INTEGER)
def test_integer_product(checks, name, seed):
    registers = random_registers(checks, seed)
    a, b = matrices(registers, *UNPACK[name])
    wanted = (registers["d"].view(np.int32) + fragments(a @ b.T)).astype(np.int32)  # wraps, as the instruction does
    assert (run(checks, name, registers, np.int32) == wanted).all()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", FLOAT)
def test_float_product_is_rounded_once(checks, name, seed):
    dtype = {"mma_16bit<Half>": np.float16, "mma_16bit<Bfloat>": ml_dtypes.bfloat16}.get(name, ml_dtypes.float8_e4m3fn)
    registers = random_registers(checks, seed, finite=dtype)
    a, b = matrices(registers, *UNPACK[name])
    wanted = (registers["d"].view(np.float32).astype(np.float64) + fragments(a @ b.T)).astype(np.float32)
    got = run(checks, name, registers, np.float32)
    assert (np.abs(got - wanted) <= np.spacing(np.abs(wanted)) * (got != wanted)).all()
    assert (got == wanted).mean() > 0.99


def nvfp4_registers(checks, seed, scale_codes):
    registers = random_registers(checks, seed)
    random = np.random.default_rng(seed + 100)
    registers["d"] = random.integers(-64, 64, (32, 4)).astype(np.float32).view(np.uint32)
    for field in ("sfa", "sfb"):
        registers[field] = random.choice(scale_codes, (32, 4)).astype(np.uint8).view(np.uint32)[:, 0]
    return registers


def nvfp4_wanted(registers, thread_a=0, thread_b=0):
    def scales(words):
        return np.ascontiguousarray(words)[:, None].view(ml_dtypes.float8_e4m3fn).astype(np.float64).repeat(16, 1)

    a, b = matrices(registers, nibbles, nibbles)
    rows = np.arange(16)
    a = E2M1[a] * scales(registers["sfa"][4 * (rows % 8) + 2 * thread_a + rows // 8])
    b = E2M1[b] * scales(registers["sfb"][4 * np.arange(8) + thread_b])
    return registers["d"].view(np.float32).astype(np.float64) + fragments(a @ b.T), fragments(np.abs(a) @ np.abs(b).T)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", ["mma_nvfp4", "emulated_mma_nvfp4"])
def test_nvfp4_product_is_exact_where_float32_holds_it(checks, name, seed):
    powers_of_two = np.array([0x28, 0x30, 0x38, 0x40, 0x48])  # 1/4 to 4
    registers = nvfp4_registers(checks, seed, powers_of_two)
    assert (run(checks, name, registers, np.float32) == nvfp4_wanted(registers)[0]).all()
    other_lanes = run(checks, f"{name}, other lanes", registers, np.float32)
    assert (other_lanes == nvfp4_wanted(registers, thread_a=1, thread_b=3)[0]).all()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("name", "roundings"), [("mma_nvfp4", 1), ("emulated_mma_nvfp4", 5)])
def test_nvfp4_product_with_any_scales(checks, name, roundings, seed):
    registers = nvfp4_registers(checks, seed, np.arange(0x7F))
    wanted, magnitude = nvfp4_wanted(registers)
    error = np.abs(run(checks, name, registers, np.float32) - wanted)
    assert (error <= roundings * 2.0**-24 * (magnitude + 64)).all()


@pytest.mark.parametrize("name", ["ldmatrix_x4", "ldmatrix_x4_trans"])
def test_ldmatrix(checks, name):
    x, r = checks.zeros(256, np.uint16), checks.zeros(128, np.uint32)
    x[:] = np.arange(256)
    assert checks.run(name, x, r, races=True) == ""
    matrix = x.reshape(4, 8, 8)
    if name == "ldmatrix_x4_trans":
        matrix = matrix.transpose(0, 2, 1)
    wanted = np.stack([matrix[:, lane // 4, 2 * (lane % 4) : 2 * (lane % 4) + 2] for lane in LANES])
    assert (r.view(np.uint16).reshape(32, 4, 2) == wanted).all()


@pytest.mark.parametrize(("source", "mask"), [(0, 1), (31, 16), (7, 31), (33, 5)])
def test_shuffles(checks, source, mask):
    x, y = checks.zeros(2, np.int32), checks.zeros(64, np.int32)
    x[:] = source, mask
    assert checks.run("shuffle", x, y) == ""
    assert (y.reshape(32, 2) == np.stack([np.full(32, source % 32), LANES ^ mask], 1)).all()
