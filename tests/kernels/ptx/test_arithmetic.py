"""Each arithmetic instruction against libm, Python's integers or numpy, bit for bit, on special and random values."""

import ctypes
import struct

import ml_dtypes
import numpy as np
import pytest

LIBM = ctypes.CDLL("libm.so.6")
LIBM.fmaf.restype = ctypes.c_float
LIBM.fmaf.argtypes = [ctypes.c_float] * 3
# <fenv.h> of x86-64.
ROUNDING = {"rn": 0, "rm": 0x400, "rp": 0x800, "rz": 0xC00}
RNG = np.random.default_rng(0)
SPECIAL = np.array(
    [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.1754942e-38, 1.1754944e-38, 3.4028235e38,
     -3.4028235e38, 0.1, 1.0000001, 16777215.0, 8388608.5, 1e-30, 1e30],
    np.float32,
)  # fmt: skip
LIMITS = {32: [0, 1, -1, 2, 31, 32, 33, 63, 64, 255, 2**31 - 1, -(2**31), 0x12345678, -7, 7, 1 << 16]}
LIMITS[64] = [*LIMITS[32], 2**63 - 1, -(2**63), 1 << 32, (1 << 32) + 1, 0x123456789ABCDEF]
LIMITS[16] = [0, 1, -1, 2, 15, 16, 17, 2**15 - 1, -(2**15), 0x1234, -7, 7]


def pairs(values, count):
    """Every combination of special values, then random ones."""
    grid = np.meshgrid(*[values] * count, indexing="ij")
    return [axis.ravel() for axis in grid]


def floats(count, random=4096):
    specials = pairs(SPECIAL if count < 3 else SPECIAL[::2], count)
    bits = RNG.integers(0, 2**32, (count, random), dtype=np.uint64).astype(np.uint32).view(np.float32)
    near = RNG.standard_normal((count, random)).astype(np.float32)
    return [np.concatenate(parts) for parts in zip(specials, bits, near)]


def integers(bits, count, random=512):
    specials = pairs(np.array(LIMITS[bits], f"i{bits // 8}"), count)
    drawn = RNG.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (count, random), dtype=np.int64).astype(f"i{bits // 8}")
    return [np.concatenate(parts) for parts in zip(specials, drawn)]


def same_bits(got, want):
    """Equal bits; a NaN must be the canonical one."""
    want = np.where(np.isnan(want), np.uint32(0x7FFFFFFF), want.view(np.uint32))
    np.testing.assert_array_equal(got.view(np.uint32), want)


def by_libm(rounding, x, y, z):
    LIBM.fesetround(ROUNDING[rounding])
    try:
        return np.array([LIBM.fmaf(*values) for values in zip(x.tolist(), y.tolist(), z.tolist())], np.float32)
    finally:
        LIBM.fesetround(ROUNDING["rn"])


@pytest.mark.parametrize("rounding", ROUNDING)
def test_fma_rounds_once(evaluate, rounding):
    x, y, z = floats(3)
    with np.errstate(all="ignore"):
        cancelling = -(x * y)
    tie_x, tie_y = np.float32([3, 3, -3, 1.5]), np.float32([2**23 + 1] * 4)
    tie_z = np.float32([2.0**-40, -(2.0**-40), 2.0**-40, 2.0**-90])
    x, y, z = (np.concatenate(parts) for parts in zip((x, y, z), (x, y, cancelling), (tie_x, tie_y, tie_z)))
    same_bits(evaluate(f"fma.{rounding}.f32 d, a, b, c", "f4", x, y, z), by_libm(rounding, x, y, z))


@pytest.mark.parametrize("rounding", ROUNDING)
@pytest.mark.parametrize("name", ["add", "sub", "mul"])
def test_float32_sums_and_products(evaluate, name, rounding):
    x, y = floats(2)
    ones = np.ones_like(x)
    # Added to a product, a zero of its sign changes nothing.
    zero = np.copysign(np.float32(0), np.copysign(ones, x) * np.copysign(ones, y))
    operands = {"add": (x, ones, y), "sub": (x, ones, -y), "mul": (x, y, zero)}[name]
    same_bits(evaluate(f"{name}.{rounding}.f32 d, a, b", "f4", x, y), by_libm(rounding, *operands))


def test_float32_division_roots_and_integral_values(evaluate):
    x, y = floats(2)
    with np.errstate(all="ignore"):
        same_bits(evaluate("div.rn.f32 d, a, b", "f4", x, y), x / y)
        same_bits(evaluate("rcp.rn.f32 d, a", "f4", x), np.float32(1) / x)
        same_bits(evaluate("sqrt.rn.f32 d, a", "f4", x), np.sqrt(x))
        for modifier, function in {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}.items():
            same_bits(evaluate(f"cvt.{modifier}.f32.f32 d, a", "f4", x), function(x))


def test_minimum_and_maximum_prefer_numbers_and_order_zeros(evaluate):
    x, y = np.float32([0.0, -0.0, np.nan, 1.0, np.nan, 2.0]), np.float32([-0.0, 0.0, 1.0, np.nan, np.nan, -3.0])
    low, high = np.float32([-0.0, -0.0, 1.0, 1.0, np.nan, -3.0]), np.float32([0.0, 0.0, 1.0, 1.0, np.nan, 2.0])
    same_bits(evaluate("min.f32 d, a, b", "f4", x, y), low)
    same_bits(evaluate("max.f32 d, a, b", "f4", x, y), high)
    same_bits(evaluate("max.NaN.f32 d, a, b", "f4", x, y), np.float32([0.0, 0.0, np.nan, np.nan, np.nan, 2.0]))


def test_sat_and_ftz(evaluate):
    x = np.float32([-1.0, 0.25, 3.0, np.nan, 1e-40, -1e-40])
    same_bits(evaluate("add.sat.f32 d, a, 0f00000000", "f4", x), np.float32([0, 0.25, 1, 0, 1e-40, 0]))
    same_bits(evaluate("mul.ftz.f32 d, a, 0f3F800000", "f4", x), np.float32([-1.0, 0.25, 3.0, np.nan, 0.0, -0.0]))


@pytest.mark.parametrize(
    ("name", "function", "limit"),
    [("ex2", np.exp2, 2**-22), ("lg2", np.log2, 2**-22), ("tanh", np.tanh, 2**-10), ("rsqrt", lambda x: 1 / np.sqrt(x), 2**-22)],
)
def test_approximate_functions_are_within_the_documented_error(evaluate, name, function, limit):
    x = np.linspace(0.01, 20, 1000, dtype=np.float32)
    got = evaluate(f"{name}.approx.f32 d, a", "f4", x)
    np.testing.assert_allclose(got, function(x.astype(np.float64)), rtol=limit)


def test_negation_and_absolute_value_keep_nan_payloads(evaluate):
    bits = np.uint32([0x7FC12345, 0xFFC12345, 0x80000000, 0x3F800000])
    np.testing.assert_array_equal(evaluate("neg.f32 d, a", "u4", bits), bits ^ 0x80000000)
    np.testing.assert_array_equal(evaluate("abs.f32 d, a", "u4", bits), bits & 0x7FFFFFFF)


def wrap(value, bits):
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def quotient(x, y):
    return -1 if y == 0 else (abs(x) // abs(y)) * (1 if (x < 0) == (y < 0) else -1)


INTEGER = {
    "add.s{b} d, a, b": lambda x, y, b: x + y,
    "sub.s{b} d, a, b": lambda x, y, b: x - y,
    "mul.lo.s{b} d, a, b": lambda x, y, b: x * y,
    "mul.hi.s{b} d, a, b": lambda x, y, b: (x * y) >> b,
    "mul.hi.u{b} d, a, b": lambda x, y, b: ((x % 2**b) * (y % 2**b)) >> b,
    "div.s{b} d, a, b": lambda x, y, b: quotient(x, y),
    "rem.s{b} d, a, b": lambda x, y, b: x if y == 0 else x - y * quotient(x, y),
    "div.u{b} d, a, b": lambda x, y, b: -1 if y == 0 else (x % 2**b) // (y % 2**b),
    "min.s{b} d, a, b": lambda x, y, b: min(x, y),
    "max.u{b} d, a, b": lambda x, y, b: max(x % 2**b, y % 2**b),
    "and.b{b} d, a, b": lambda x, y, b: x & y,
    "xor.b{b} d, a, b": lambda x, y, b: x ^ y,
    "mad.lo.s{b} d, a, b, b": lambda x, y, b: x * y + y,
}


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("instruction", INTEGER)
def test_integers_wrap_around(evaluate, instruction, bits):
    x, y = integers(bits, 2)
    want = [wrap(INTEGER[instruction](a, b, bits), bits) for a, b in zip(x.tolist(), y.tolist())]
    np.testing.assert_array_equal(evaluate(instruction.format(b=bits), f"i{bits // 8}", x, y), want)


SHIFTS = {
    "shl.b{b}": lambda x, n, b: x << n if n < b else 0,
    "shr.s{b}": lambda x, n, b: x >> n,
    "shr.u{b}": lambda x, n, b: (x % 2**b) >> n,
}


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("name", SHIFTS)
def test_shifts_clamp_their_amount(evaluate, name, bits):
    x = np.repeat(np.array(LIMITS[bits], f"i{bits // 8}"), 8)
    amount = np.resize(np.uint32([0, 1, 15, 16, 31, 32, 63, 200]), len(x))
    want = [wrap(SHIFTS[name](a, n, bits), bits) for a, n in zip(x.tolist(), amount.tolist())]
    np.testing.assert_array_equal(evaluate(f"{name.format(b=bits)} d, a, b", f"i{bits // 8}", x, amount), want)


def field(x, position, length, bits, signed):
    if length == 0:
        return 0
    taken = [(x >> min(position + i, bits - 1)) & 1 if signed or position + i < bits else 0 for i in range(bits)]
    top = taken[min(length, bits) - 1] if signed else 0
    return sum((taken[i] if i < length else top) << i for i in range(bits))


@pytest.mark.parametrize("type", ["u32", "s32", "u64", "s64"])
def test_bit_fields(evaluate, type):
    bits, signed = int(type[1:]), type[0] == "s"
    x = np.repeat(np.array(LIMITS[bits], f"i{bits // 8}"), 49)
    position = np.resize(np.repeat(np.uint32([0, 1, 8, 31, 33, 63, 100]), 7), len(x))
    length = np.resize(np.uint32([0, 1, 5, 16, 32, 40, 64]), len(x))
    triples = list(zip(x.tolist(), position.tolist(), length.tolist()))
    want = [wrap(field(a % 2**bits, p, n, bits, signed), bits) for a, p, n in triples]
    np.testing.assert_array_equal(evaluate(f"bfe.{type} d, a, b, c", f"i{bits // 8}", x, position, length), want)
    mask = [(((1 << n) - 1) << p) & (2**bits - 1) for _, p, n in triples]
    want = [wrap((((a ^ 0x55) << p) & m) | (a & ~m), bits) for (a, p, _), m in zip(triples, mask)]
    np.testing.assert_array_equal(evaluate(f"bfi.b{bits} d, a, b, c, e", f"i{bits // 8}", x ^ 0x55, x, position, length), want)


def test_wide_products(evaluate):
    x, y = integers(32, 2)
    np.testing.assert_array_equal(evaluate("mul.wide.s32 d, a, b", "i8", x, y), x.astype(np.int64) * y)
    want = x.view(np.uint32).astype(np.uint64) * y.view(np.uint32) + np.uint64(5)
    np.testing.assert_array_equal(evaluate("mad.wide.u32 d, a, b, 5", "u8", x, y), want)


def test_bit_counts_and_permutations(evaluate):
    x, y = (a.view(np.uint32) for a in integers(32, 2))
    text = [f"{value:032b}" for value in x.tolist()]
    np.testing.assert_array_equal(evaluate("popc.b32 d, a", "u4", x), [t.count("1") for t in text])
    np.testing.assert_array_equal(evaluate("clz.b32 d, a", "u4", x), [len(t) - len(t.lstrip("0")) for t in text])
    np.testing.assert_array_equal(evaluate("brev.b32 d, a", "u4", x), [int(t[::-1], 2) for t in text])
    shift = y & 63
    both = [(b << 32) | a for a, b in zip(x.tolist(), y.tolist())]
    want = [(value << (s & 31)) >> 32 & 0xFFFFFFFF for value, s in zip(both, shift.tolist())]
    np.testing.assert_array_equal(evaluate("shf.l.wrap.b32 d, a, b, c", "u4", x, y, shift), want)
    want = [value >> min(s, 32) & 0xFFFFFFFF for value, s in zip(both, shift.tolist())]
    np.testing.assert_array_equal(evaluate("shf.r.clamp.b32 d, a, b, c", "u4", x, y, shift), want)
    table = 0b01101010
    want = [sum(((table >> (4 * (a >> i & 1) + 2 * (b >> i & 1) + (c >> i & 1))) & 1) << i for i in range(32))
            for a, b, c in zip(x.tolist(), y.tolist(), shift.tolist())]  # fmt: skip
    np.testing.assert_array_equal(evaluate(f"lop3.b32 d, a, b, c, {table}", "u4", x, y, shift), want)


def test_permuted_bytes(evaluate):
    x, y, selector = (RNG.integers(0, 2**32, 500, dtype=np.uint64).astype(np.uint32) for _ in range(3))

    def permuted(a, b, s):
        data = struct.pack("<II", a, b)
        picked = [(data[s >> 4 * i & 7], s >> 4 * i & 8) for i in range(4)]
        return int.from_bytes(bytes(255 * (byte >> 7) if sign else byte for byte, sign in picked), "little")

    want = [permuted(*values) for values in zip(x.tolist(), y.tolist(), selector.tolist())]
    np.testing.assert_array_equal(evaluate("prmt.b32 d, a, b, c", "u4", x, y, selector), want)


COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_of_floats_with_nan(evaluate, name):
    x, y = pairs(SPECIAL, 2)
    unordered = np.isnan(x) | np.isnan(y)
    plain = np.array([eval(f"a {COMPARISONS[name]} b") for a, b in zip(x.tolist(), y.tolist())])
    np.testing.assert_array_equal(evaluate(f"setp.{name}.f32 d, a, b", "pred", x, y), plain & ~unordered)
    np.testing.assert_array_equal(evaluate(f"setp.{name}u.f32 d, a, b", "pred", x, y), plain | unordered)


@pytest.mark.parametrize(("type", "dtype"), [("f16x2", np.float16), ("bf16x2", ml_dtypes.bfloat16)])
def test_pairs_are_compared_each(evaluate, type, dtype):
    x, y = (np.array(values, dtype) for values in ([1, 2, np.nan, 0, 5, -3, 4, 4], [1, 3, np.nan, -0.0, 4, -3, 4, 5]))
    for name, compare in (("eq", np.equal), ("lt", np.less), ("neu", np.not_equal)):
        for half, target in enumerate(("d|q", "q|d")):
            got = evaluate(f".reg .pred q; setp.{name}.{type} {target}, a, b", "pred", x.view(np.uint32), y.view(np.uint32))
            np.testing.assert_array_equal(got, compare(x[half::2].astype(np.float32), y[half::2].astype(np.float32)))


def test_comparisons_combine_with_a_predicate(evaluate):
    x, y = integers(32, 2)
    both = "setp.gt.s32 p, b, 0; setp.lt.and.s32 d|q, a, b, !p"
    np.testing.assert_array_equal(evaluate(both, "pred", x, y), (x < y) & ~(y > 0))
    np.testing.assert_array_equal(evaluate(f"{both}; mov.pred d, q", "pred", x, y), (x >= y) & ~(y > 0))
    np.testing.assert_array_equal(evaluate("setp.lo.u32 d, a, b", "pred", x, y), x.view(np.uint32) < y.view(np.uint32))


def test_an_unknown_opcode_is_named_with_its_line(evaluate):
    with pytest.raises(NotImplementedError, match=r"PTX line \d+, 'frobnicate.b32 d, a': opcode frobnicate is not known here"):
        evaluate("frobnicate.b32 d, a", "u4", np.uint32([1]))


def test_an_unknown_modifier_is_not_ignored(evaluate):
    with pytest.raises(NotImplementedError, match="add.odd.s32 d, a, a': no meaning is known here for odd"):
        evaluate("add.odd.s32 d, a, a", "u4", np.uint32([1]))
