"""Instructions of a whole warp against definitions written out lane by lane."""

import ml_dtypes
import numpy as np
import pytest

RNG = np.random.default_rng(2)
LANES = np.arange(32)


def words(count):
    """count registers of two warps."""
    return [RNG.integers(0, 2**32, 64, dtype=np.uint64).astype(np.uint32) for _ in range(count)]


def test_shuffles_follow_their_modes(evaluate):
    (x,) = words(1)
    lane, warp = np.arange(64) % 32, np.arange(64) // 32 * 32
    cases = {
        "bfly.b32 d, a, 5, 31": lane ^ 5,
        "idx.b32 d, a, 7, 31": lane * 0 + 7,
        "idx.b32 d, a, 2, 6175": lane // 8 * 8 + 2,
        "up.b32 d, a, 3, 0": np.where(lane >= 3, lane - 3, lane),
        "down.b32 d, a, 9, 31": np.where(lane + 9 < 32, lane + 9, lane),
        "down.b32 d, a, 1, 7199": np.where((lane + 1) % 4, lane + 1, lane),
    }
    for text, of in cases.items():
        np.testing.assert_array_equal(evaluate(f"shfl.sync.{text}, -1", "u4", x), x[of + warp], text)
    inside = evaluate("shfl.sync.down.b32 c|d, a, 9, 31, -1", "pred", x, x, x)
    np.testing.assert_array_equal(inside, lane + 9 < 32)


def test_votes_and_reductions(evaluate):
    x = words(1)[0].view(np.int32)
    condition = (x > 0).reshape(2, 32)
    ballot = (condition * (1 << LANES.astype(np.uint64))).sum(1)
    positive = "setp.gt.s32 p, a, 0; "
    np.testing.assert_array_equal(evaluate(positive + "vote.sync.ballot.b32 d, p, -1", "u4", x), ballot.repeat(32))
    np.testing.assert_array_equal(evaluate(positive + "vote.sync.any.pred d, p, -1", "pred", x), condition.any(1).repeat(32))
    np.testing.assert_array_equal(evaluate(positive + "vote.sync.all.pred d, !p, -1", "pred", x), (~condition).all(1).repeat(32))
    np.testing.assert_array_equal(evaluate("redux.sync.max.s32 d, a, -1", "i4", x), x.reshape(2, 32).max(1).repeat(32))
    small = x & 3
    same = [[sum(int(a == b) << i for i, b in enumerate(warp)) for a in warp] for warp in small.reshape(2, 32).tolist()]
    np.testing.assert_array_equal(evaluate("match.any.sync.b32 d, a, -1", "u4", small), np.ravel(same))


def elements(word, type):
    """The elements of a register, low bits first, as floats."""
    count = {"s4": 8, "u4": 8, "e2m1": 8, "s8": 4, "e4m3": 4, "f16": 2, "bf16": 2}[type]
    bits = 32 // count
    codes = [int(word) >> bits * i & (1 << bits) - 1 for i in range(count)]
    if type in ("s4", "s8"):
        return [code - (1 << bits) if code >> (bits - 1) else code for code in codes]
    if type == "u4":
        return codes
    if type == "e2m1":
        return [(-1 if code & 8 else 1) * [0, 0.5, 1, 1.5, 2, 3, 4, 6][code & 7] for code in codes]
    dtype, storage = {"e4m3": (ml_dtypes.float8_e4m3fn, "u1"), "f16": (np.float16, "u2"), "bf16": (ml_dtypes.bfloat16, "u2")}[
        type
    ]
    return np.array(codes, storage).view(dtype).astype(float).tolist()


def matrices(a, b, left, right):
    """The fragments of one warp as A [16, K] and B [K, 8], by the tables of PTX ISA 9.7.14.5."""
    per_word = len(elements(0, left))
    wide_a, wide_b = np.zeros((16, 8 * per_word)), np.zeros((8 * per_word, 8))
    for lane in range(32):
        group, in_group = lane // 4, lane % 4
        for register in range(4):
            for index, value in enumerate(elements(a[register][lane], left)):
                wide_a[group + 8 * (register % 2), per_word * (4 * (register // 2) + in_group) + index] = value
        for register in range(2):
            for index, value in enumerate(elements(b[register][lane], right)):
                wide_b[per_word * (4 * register + in_group) + index, group] = value
    return wide_a, wide_b


def fragments(matrix):
    """D [16, 8] as four registers of one warp."""
    rows, columns = LANES // 4, 2 * (LANES % 4)
    return [matrix[rows + 8 * (index // 2), columns + index % 2] for index in range(4)]


def run_mma(evaluate, name, a, b, c, result, scales=()):
    instruction = f"mma.sync.aligned.{name} {{d0, d1, d2, d3}}, {{r0, r1, r2, r3}}, {{r4, r5}}, {{r6, r7, r8, r9}}"
    if scales:
        instruction += ", {r10}, {0, 0}, {r11}, {0, 0}"
    # evaluate knows eight operands; the twelve here come packed in pairs.
    registers = [*a, *b, *c, *(scales or (a[0], a[0]))]
    packed = [np.stack(pair, 1).copy().view(np.uint64)[:, 0] for pair in zip(*[(r.view(np.uint32) for r in registers)] * 2)]
    unpack = " ".join(f"mov.b64 {{r{2 * i}, r{2 * i + 1}}}, {name};" for i, name in enumerate("abcefg"))
    return evaluate(f"{{ .reg .b32 r<12>; {unpack} {instruction}; }}", [result] * 4, *packed)


PRODUCTS = {
    "m16n8k64.row.col.s32.s4.s4.s32": ("s4", "s4"),
    "m16n8k64.row.col.s32.u4.s4.s32": ("u4", "s4"),
    "m16n8k32.row.col.s32.s8.s8.s32": ("s8", "s8"),
    "m16n8k32.row.col.satfinite.s32.s8.s8.s32": ("s8", "s8"),
    "m16n8k32.row.col.f32.e4m3.e4m3.f32": ("e4m3", "e4m3"),
    "m16n8k16.row.col.f32.f16.f16.f32": ("f16", "f16"),
    "m16n8k16.row.col.f32.bf16.bf16.f32": ("bf16", "bf16"),
}


def test_saturated_sums_stop_at_the_ends_of_int32(evaluate):
    name, ends = "m16n8k32.row.col.satfinite.s32.s8.s8.s32", (2**31 - 1, -(2**31))
    ones, rising = [np.full(64, 0x01010101, np.uint32)] * 4, [np.full(64, word, np.uint32) for word in (0x01010101, 0xFFFFFFFF)]
    for end, b in zip(ends, rising):
        got = run_mma(evaluate, name, ones, [b, b], [np.full(64, end, np.int32)] * 4, "i4")
        assert all((register == end).all() for register in got)


@pytest.mark.parametrize("name", PRODUCTS)
def test_matrix_products(evaluate, name):
    left, right = PRODUCTS[name]
    a, b = words(4), words(2)
    if left in ("f16", "bf16"):
        dtype = np.float16 if left == "f16" else ml_dtypes.bfloat16
        a, b = ([RNG.standard_normal(128).astype(dtype).view(np.uint32) for _ in part] for part in (a, b))
    if left == "e4m3":
        a, b = ([word & 0x77777777 for word in part] for part in (a, b))
    integers = ".s32.s" in name or ".s32.u" in name
    c = [(RNG.standard_normal(64) * 100).astype(np.int32 if integers else np.float32) for _ in range(4)]
    got = run_mma(evaluate, name, a, b, c, "i4" if integers else "f4")
    for warp in range(2):
        lanes = slice(32 * warp, 32 * warp + 32)
        wide_a, wide_b = matrices([r[lanes] for r in a], [r[lanes] for r in b], left, right)
        want = [(product + addend[lanes]).astype(addend.dtype) for product, addend in zip(fragments(wide_a @ wide_b), c)]
        for register, expected in zip(got, want):
            np.testing.assert_array_equal(register[lanes], expected)


def test_block_scaled_products(evaluate):
    a, b = words(4), words(2)
    # Unsigned E4M3 scales of every size but NaN.
    scales = [np.frombuffer(RNG.integers(0, 0x7F, 256).astype(np.uint8).tobytes(), np.uint32) for _ in range(2)]
    c = [RNG.standard_normal(64).astype(np.float32) for _ in range(4)]
    name = "kind::mxf4nvf4.block_scale.scale_vec::4X.m16n8k64.row.col.f32.e2m1.e2m1.f32.ue4m3"
    got = run_mma(evaluate, name, a, b, c, "f4", tuple(scales))
    table = np.arange(256).astype(np.uint8).view(ml_dtypes.float8_e4m3fn).astype(float)
    for warp in range(2):
        lanes = slice(32 * warp, 32 * warp + 32)
        wide_a, wide_b = matrices([r[lanes] for r in a], [r[lanes] for r in b], "e2m1", "e2m1")
        scale_a, scale_b = (table[s[lanes].copy().view(np.uint8).reshape(32, 4)] for s in scales)
        for k in range(64):
            for row in range(16):
                wide_a[row, k] *= scale_a[4 * (row % 8) + row // 8, k // 16]
            for column in range(8):
                wide_b[k, column] *= scale_b[4 * column, k // 16]
        for register, product, addend in zip(got, fragments(wide_a @ wide_b), c):
            np.testing.assert_array_equal(register[lanes], (product + addend[lanes]).astype(np.float32))


def test_unit_block_scales_change_nothing(evaluate):
    a, b = ([word & 0x77777777 for word in words(count)] for count in (4, 2))
    c = [RNG.standard_normal(64).astype(np.float32) for _ in range(4)]
    ones = np.full(64, 0x7F7F7F7F, np.uint32)
    scaled = "m16n8k32.row.col.kind::mxf8f6f4.block_scale.scale_vec::1X.f32.e4m3.e4m3.f32.ue8m0"
    got = run_mma(evaluate, scaled, a, b, c, "f4", (ones, ones))
    plain = run_mma(evaluate, "m16n8k32.row.col.f32.e4m3.e4m3.f32", a, b, c, "f4")
    np.testing.assert_array_equal(got, plain)


@pytest.mark.parametrize("transposed", [False, True], ids=["rows", "transposed"])
def test_ldmatrix_deals_out_rows(run_kernel, on_16_bytes, transposed):
    values = on_16_bytes(RNG.integers(0, 2**16, (32, 8)).astype(np.uint16))
    out = on_16_bytes(np.zeros((4, 32, 2), np.uint16))
    run_kernel("warp", "ldmatrix_transposed" if transposed else "ldmatrix_rows", {"in": values, "out": out}, shared_bytes=512)
    for matrix in range(4):
        rows = values[8 * matrix : 8 * matrix + 8]
        want = (rows.T if transposed else rows).reshape(32, 2)
        np.testing.assert_array_equal(out[matrix], want)
