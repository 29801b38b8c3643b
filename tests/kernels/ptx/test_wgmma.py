"""wgmma on each layout, against numpy; layouts and fragments are written here as the PTX ISA draws them."""

import ml_dtypes
import numpy as np
import pytest

from halfbyte.testing.ptx import PtxFault, UnsupportedPtx

# Type: what the sums are, and what a code means.
TYPES = {
    "s8": ("s32", np.int8),
    "e4m3": ("f32", ml_dtypes.float8_e4m3fn),
    "f16": ("f32", np.float16),
    "bf16": ("f32", ml_dtypes.bfloat16),
}
SWIZZLES = {16: 0, 128: 1, 64: 2, 32: 3}
FENCE, COMMIT, WAIT = "wgmma.fence.sync.aligned;", "wgmma.commit_group.sync.aligned;", "wgmma.wait_group.sync.aligned 0;"
ROWS, K_BYTES = 64, 32
A_BYTES = 8192


def random_codes(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    if dtype == np.int8:
        return rng.integers(-128, 128, shape).astype(np.int8)
    return rng.normal(0, 1, shape).astype(dtype)


def laid_out(matrix, span):
    """Bytes of a K-major matrix: atoms of 8 rows by a span of bytes, those along K side by side, each row's chunks permuted."""
    rows = matrix.view(np.uint8).reshape(len(matrix), -1)
    image = np.zeros(rows.size, np.uint8)
    for row, column in np.ndindex(len(rows), rows.shape[1] // 16):
        atom_column, chunk = divmod(column, span // 16)
        chunk ^= (row % 8 * span // 128) % (span // 16)
        atom = row // 8 * (rows.shape[1] // span) + atom_column
        at = atom * 8 * span + row % 8 * span + 16 * chunk
        image[at : at + 16] = rows[row, 16 * column : 16 * column + 16]
    return image


def descriptor(offset, span, row_bytes):
    """Relative to shared memory: two 16-byte columns lie an atom apart without a swizzle; so do 8 rows, times atoms along K."""
    return (offset >> 4) | (8 * span >> 4) << 16 | (8 * row_bytes >> 4) << 32 | SWIZZLES[span] << 62


def copy_in(array, offset, count, threads=128):
    """All threads copy bytes of an array to shared memory."""
    return f"""
    mul.wide.u32 %rd1, %thread, 16; add.u64 %rd1, %rd1, {array}; mad.lo.u32 %r1, %thread, 16, %memory; mov.u32 %r0, 0;
    LOOP{offset}: ld.global.v4.u32 {{%r2, %r3, %r4, %r5}}, [%rd1]; st.shared.v4.u32 [%r1+{offset}], {{%r2, %r3, %r4, %r5}};
    add.u64 %rd1, %rd1, {16 * threads}; add.u32 %r1, %r1, {16 * threads}; add.u32 %r0, %r0, {16 * threads};
    setp.lt.u32 %p1, %r0, {count}; @%p1 bra LOOP{offset};
    """


def store_sums(array, count, threads=128):
    """Register i of every thread to row i of an array."""
    stores = "".join(f"st.global.b32 [%rd1+{4 * threads * i}], %d{i};" for i in range(count))
    return f"mul.wide.u32 %rd1, %thread, 4; add.u64 %rd1, %rd1, {array};{stores}"


def registers(count):
    return "{" + ", ".join(f"%d{i}" for i in range(count)) + "}"


def multiply(type, n, a="%rd4", scales="1, 1", step=0, d=None):
    bits = np.dtype(TYPES[type][1]).itemsize * 8
    result = TYPES[type][0]
    after = {"s8": "", "e4m3": f", {scales}"}.get(type, f", {scales}{'' if a.startswith('{') else ', 0'}, 0")
    return f"""wgmma.mma_async.sync.aligned.m64n{n}k{256 // bits}.{result}.{type}.{type}
    {d or registers(n // 2)}, {a}, %rd5, %p2{after};"""


def descriptors(a, b):
    """Of A in %rd4 and B in %rd5."""
    add = "cvt.u64.u32 %rd6, %memory; shr.u64 %rd6, %rd6, 4;"
    return f"{add} mov.b64 %rd4, {a:#x}; add.u64 %rd4, %rd4, %rd6; mov.b64 %rd5, {b:#x}; add.u64 %rd5, %rd5, %rd6;"


READY = "fence.proxy.async.shared::cta; bar.sync 0; setp.ne.u32 %p2, 0, 0;"


def collected(out, n, dtype=np.float64):
    """[64, N] from registers by thread: PTX ISA, figure of the fragment of D."""
    sums = np.zeros((ROWS, n), dtype)
    for i, thread in np.ndindex(n // 2, 128):
        warp, lane = divmod(thread, 32)
        sums[16 * warp + lane // 4 + 8 * (i // 2 % 2), 8 * (i // 4) + 2 * (lane % 4) + i % 2] = out[i, thread]
    return sums


def compare(out, want, n, type):
    result = TYPES[type][0]
    got = collected(out.view(np.int32 if result == "s32" else np.float32), n)
    if result == "s32":
        np.testing.assert_array_equal(got, want)
    else:
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-5)


@pytest.fixture
def product(run_hopper, on_16_bytes):
    """Run products of a [64, K] and b [N, K] over all of K, and give the registers."""

    def run(type, n, span, steps=1, seed=0, between=""):
        dtype = TYPES[type][1]
        k = steps * K_BYTES // np.dtype(dtype).itemsize
        a, b = random_codes((ROWS, k), dtype, seed), random_codes((n, k), dtype, seed + 1)
        row_bytes = steps * K_BYTES
        images = [on_16_bytes(np.resize(laid_out(one, span), A_BYTES)) for one in (a, b)]
        images[1] = on_16_bytes(np.concatenate([laid_out(b, span), np.zeros(2048, np.uint8)]))
        out = on_16_bytes(np.zeros((n // 2, 128), np.uint32))
        body = copy_in("%array0", 0, ROWS * row_bytes) + copy_in("%array1", A_BYTES, n * row_bytes) + READY + FENCE
        body += descriptors(descriptor(0, span, row_bytes), descriptor(A_BYTES, span, row_bytes))
        # Two 16-byte columns a step: within a row under a swizzle, two atoms without.
        advance = 2 * 8 if span == 16 else 2
        for step in range(steps):
            inside = step * K_BYTES % span if span > 16 else 0
            atoms = step * K_BYTES // span if span > 16 else 0
            move = (8 * span * atoms + inside) >> 4 if span > 16 else advance * step
            add = f"add.u64 %rd4, %rd4, {move}; add.u64 %rd5, %rd5, {move};"
            back = f"sub.u64 %rd4, %rd4, {move}; sub.u64 %rd5, %rd5, {move}; setp.eq.u32 %p2, 0, 0;"
            body += add + multiply(type, n) + back + between
        run_hopper(
            body + COMMIT + WAIT + store_sums("%array2", n // 2), [*images, out], shared_bytes=A_BYTES + images[1].nbytes + 4096
        )
        return out, a.astype(np.float64) @ b.astype(np.float64).T

    return run


@pytest.mark.parametrize("span", SWIZZLES)
@pytest.mark.parametrize("type", TYPES)
def test_layouts_and_types(product, type, span):
    out, want = product(type, 64, span, steps=4)
    compare(out, want, 64, type)


def laid_out_across(matrix, span):
    """Bytes of 16-bit rows that are neighbours: atoms of 8 columns of K by a span of rows, those along the rows side by side."""
    columns = np.ascontiguousarray(matrix.T).view(np.uint8)
    atoms = columns.shape[1] // span
    image = np.zeros(columns.size, np.uint8)
    for k, column in np.ndindex(len(columns), columns.shape[1] // 16):
        atom, chunk = divmod(column, span // 16)
        chunk ^= (k % 8 * span // 128) % (span // 16)
        at = (k // 8 * atoms + atom) * 8 * span + k % 8 * span + 16 * chunk
        image[at : at + 16] = columns[k, 16 * column : 16 * column + 16]
    return image


@pytest.mark.parametrize("span", SWIZZLES)
@pytest.mark.parametrize("type", ["f16", "bf16"])
def test_rows_that_are_neighbours(run_hopper, on_16_bytes, type, span):
    """Both matrices; from atom to atom one way is the leading bytes and the other the stride, which swizzles exchange."""
    a, b = random_codes((ROWS, 16), TYPES[type][1], 5), random_codes((128, 16), TYPES[type][1], 6)
    images, out = [on_16_bytes(laid_out_across(one, span)) for one in (a, b)], on_16_bytes(np.zeros((64, 128), np.uint32))

    def across(offset, rows):
        to_rows, to_k = 8 * span >> 4, 8 * 2 * rows >> 4
        leading, stride = (to_k, to_rows) if span == 16 else (to_rows, to_k)
        return offset >> 4 | leading << 16 | stride << 32 | SWIZZLES[span] << 62

    body = copy_in("%array0", 0, 2048) + copy_in("%array1", 2048, 4096) + READY + FENCE
    product = multiply(type, 128).replace(", 0, 0;", ", 1, 1;")
    assert ", 1, 1, 1, 1;" in product
    body += descriptors(across(0, ROWS), across(2048, 128)) + product + COMMIT + WAIT
    run_hopper(body + store_sums("%array2", 64), [*images, out], shared_bytes=8192)
    compare(out, a.astype(np.float64) @ b.astype(np.float64).T, 128, type)


@pytest.mark.parametrize("n", [8, 24, 192, 256])
def test_widths(product, n):
    out, want = product("s8", n, 128, steps=4)
    compare(out, want, n, "s8")


@pytest.mark.parametrize("type", TYPES)
def test_a_in_registers(run_hopper, on_16_bytes, type):
    dtype, n, span = TYPES[type][1], 32, 32
    size = np.dtype(dtype).itemsize
    a, b = (random_codes((rows, K_BYTES // size), dtype, rows) for rows in (ROWS, n))
    words = on_16_bytes(np.zeros((128, 4), np.uint32))
    in_words = a.view(np.uint32)
    for thread, i in np.ndindex(128, 4):
        warp, lane = divmod(thread, 32)
        words[thread, i] = in_words[16 * warp + lane // 4 + 8 * (i % 2), lane % 4 + 4 * (i // 2)]
    image, out = on_16_bytes(np.resize(laid_out(b, span), 2048)), on_16_bytes(np.zeros((n // 2, 128), np.uint32))
    body = copy_in("%array0", 0, n * K_BYTES) + READY + descriptors(0, descriptor(0, span, K_BYTES))
    body += "mul.wide.u32 %rd1, %thread, 16; add.u64 %rd1, %rd1, %array1; ld.global.v4.u32 {%a0, %a1, %a2, %a3}, [%rd1];"
    body += FENCE + multiply(type, n, a="{%a0, %a1, %a2, %a3}") + COMMIT + WAIT + store_sums("%array2", n // 2)
    run_hopper(body, [image, words, out])
    compare(out, a.astype(np.float64) @ b.astype(np.float64).T, n, type)


@pytest.fixture
def run(run_hopper, on_16_bytes):
    """A product of e4m3 ones with K = 32 and N = 16, which instructions stand around."""

    def run_faulty(issue, ready=READY, finish=COMMIT + WAIT, store=store_sums("%array1", 8), threads=128, a=0, type="e4m3"):
        ones = on_16_bytes(np.full(4096, 0x38, np.uint8))
        out = on_16_bytes(np.zeros((8, threads), np.float32))
        body = copy_in("%array0", 0, 4096, threads) + ready
        body += descriptors(descriptor(a, 32, K_BYTES), descriptor(2048, 32, K_BYTES)) + issue + finish + store
        run_hopper(body, [ones, out], threads=threads, shared_bytes=4104)
        return out

    return run_faulty


PRODUCT = multiply("e4m3", 16)
ADD = "setp.eq.u32 %p2, 0, 0;"


def test_scales_and_addition(run):
    assert (run(FENCE + PRODUCT) == 32).all()
    assert (run(FENCE + multiply("e4m3", 16, scales="-1, 1")) == -32).all()
    assert (run(FENCE + PRODUCT + ADD + PRODUCT + PRODUCT) == 96).all()
    assert (run(FENCE + PRODUCT + COMMIT + ADD + PRODUCT, finish=COMMIT + WAIT) == 64).all()


def test_two_warpgroups(run):
    assert (run(FENCE + PRODUCT, threads=256, store=store_sums("%array1", 8, 256)) == 32).all()


def test_warps_that_come_apart_wait_for_their_warpgroup(run):
    init = "setp.eq.u32 %p4, %thread, 0; @%p4 mbarrier.init.shared::cta.b64 [%memory+4096], 1;"
    apart = """setp.gt.u32 %p4, %warp, 3; @%p4 bra OTHERS; setp.lt.u32 %p4, %warp, 2; @%p4 bra TOGETHER;
    mbarrier.try_wait.parity.shared::cta.b64 %p5, [%memory+4096], 0; TOGETHER:"""
    others = "ret; OTHERS: setp.eq.u32 %p4, %thread, 128; @%p4 mbarrier.arrive.shared::cta.b64 _, [%memory+4096];"
    out = run(apart + FENCE + PRODUCT, ready=init + READY, store=store_sums("%array1", 8, 256) + others, threads=256)
    assert (out[:, :128] == 32).all()


def test_moves_of_sums_under_way_rename_them(run):
    moves = "".join(f"mov.b32 %d{i + 64}, %d{i};" for i in range(8))
    moved = "{" + ", ".join(f"%d{i + 64}" for i in range(8)) + "}"
    back = "".join(f"mov.b32 %d{i}, %d{i + 64};" for i in range(8))
    assert (run(FENCE + PRODUCT + ADD + moves + multiply("e4m3", 16, d=moved), store=back + store_sums("%array1", 8)) == 64).all()
    with pytest.raises(
        PtxFault, match=r"line \d+ \(st\.global.*register %d0 of the wgmma at line \d+, whose group nobody waited for"
    ):
        run(FENCE + PRODUCT + moves, finish=COMMIT, store=back + store_sums("%array1", 8))


FAULTS = {
    "no wait": (dict(issue=FENCE + PRODUCT, finish=COMMIT), r"\(st\.global.*register %d0 of the wgmma at line \d+, whose"),
    "no commit": (dict(issue=FENCE + PRODUCT, finish=WAIT), r"register %d0 of the wgmma at line \d+, whose group nobody"),
    "one group too few": (
        dict(issue=FENCE + PRODUCT, finish=COMMIT + WAIT.replace(" 0", " 1")), r"register %d0 of the wgmma at line \d+"
    ),
    "written before the wait": (
        dict(issue=FENCE + PRODUCT + "mov.b32 %d3, 0;"), r"\(mov\.b32 %d3, 0\).*register %d3 of the wgmma at line \d+, whose"
    ),
    "no fence": (dict(issue=PRODUCT), r"wgmma\.mma_async without a wgmma\.fence before it"),
    "written after the fence": (
        dict(issue=FENCE + "mov.b32 %d5, 0;" + PRODUCT), r"register %d5 of wgmma\.mma_async is used after the last wgmma\.fence"
    ),
    "another shape": (
        dict(issue=FENCE + PRODUCT + multiply("e4m3", 8)), r"register %d0 of the wgmma at line \d+, whose group nobody waited for"
    ),
    "no fence between proxies": (
        dict(issue=FENCE + PRODUCT, ready="bar.sync 0;"), r"wgmma of shared memory that thread \d+ wrote without a fence\.proxy"
    ),
    "operand overwritten": (
        dict(issue=FENCE + PRODUCT + "st.shared.b32 [%memory+2048], %r0;"),
        r"\(st\.shared.*access to shared memory that wgmma or a bulk copy reads: nobody waited for its group",
    ),
    "misaligned matrix": (
        dict(issue=FENCE + PRODUCT, a=64), r"a swizzle of 32 bytes at shared address 0x440, not in the first row .* every 256"
    ),
    "beyond shared memory": (dict(issue=FENCE + PRODUCT, a=3072), r"shared load of 16 bytes at offset 4096, outside of its 4104"),
    "another descriptor": (
        dict(issue="cvt.u64.u32 %rd7, %warp; add.u64 %rd5, %rd5, %rd7;" + FENCE + PRODUCT),
        r"thread 32 .*another wgmma descriptor than that of the warpgroup's first thread",
    ),
    "half a warp": (
        dict(issue="setp.lt.u32 %p3, %lane, 16; @!%p3 bra AFTER;" + FENCE + PRODUCT + "AFTER:"), r"16 of the 32 threads of its"
    ),
    "half a warpgroup": (
        dict(issue=FENCE + "setp.lt.u32 %p3, %warp, 2; @!%p3 bra AFTER;" + PRODUCT + "AFTER:"),
        r"deadlock: 64 threads wait at line \d+ \(the rest of their warpgroup is not there\), 64 threads have returned",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faults(run, name):
    arguments, message = FAULTS[name]
    with pytest.raises(PtxFault, match=message):
        run(**arguments)


def test_registers_of_a_are_watched_too(run):
    a = "{%a0, %a1, %a2, %a3}"
    ready = READY + "".join(f"mov.b32 %a{i}, 0x38383838;" for i in range(4))
    issue = FENCE + multiply("e4m3", 16, a=a)
    assert (run(issue, ready=ready) == 32).all()
    with pytest.raises(
        PtxFault, match=r"\(mov\.b32 %a1, 0\).*register %a1 of the wgmma at line \d+, whose group nobody waited for"
    ):
        run(issue + "mov.b32 %a1, 0;", ready=ready)
    with pytest.raises(PtxFault, match=r"register %a\d of wgmma\.mma_async is used after the last wgmma\.fence"):
        run(FENCE + ready + multiply("e4m3", 16, a=a))


def test_integer_sums_saturate_when_asked(run_hopper, on_16_bytes):
    codes = on_16_bytes(np.concatenate([np.full(2048, 127, np.uint8), np.full(2048, 127, np.uint8)]))
    for modifier, want in (("", (2**31 - 1 + 32 * 127**2 + 2**31) % 2**32 - 2**31), (".satfinite", 2**31 - 1)):
        out = on_16_bytes(np.zeros((4, 128), np.int32))
        body = copy_in("%array0", 0, 4096) + READY + descriptors(descriptor(0, 32, 32), descriptor(2048, 32, 32)) + ADD
        body += "".join(f"mov.b32 %d{i}, 0x7fffffff;" for i in range(4)) + FENCE
        body += multiply("s8", 8).replace("k32.", f"k32{modifier}.") + COMMIT + WAIT + store_sums("%array1", 4)
        run_hopper(body, [codes, out], shared_bytes=4096)
        assert (out == want).all()


def test_what_is_not_known_is_refused(run):
    with pytest.raises(UnsupportedPtx, match="this shape and these types of wgmma are not known here"):
        run(FENCE + multiply("e4m3", 16).replace("k32", "k64"))
    with pytest.raises(UnsupportedPtx, match="4 immediates after scale-d needed"):
        run(FENCE + multiply("f16", 16).replace(", 0, 0;", ", 0;"))
