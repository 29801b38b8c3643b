"""Bulk copies and tensor maps, against numpy; swizzles are written here as permutations of the chunks of a row."""

import numpy as np
import pytest

from halfbyte.testing.ptx import PtxFault
from halfbyte.testing.ptx.tensor_map import TensorMap

FIRST = "setp.eq.u32 %p0, %thread, 0; @!%p0 bra AFTER;"
INIT = "mbarrier.init.shared::cta.b64 [%memory+{at}], 1; fence.mbarrier_init.release.cluster;"
WAIT = "WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p1, [%memory+{at}], 0; @!%p1 bra WAIT;"
LOAD = "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
STORE = "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%rd0, {{{x}, {y}}}], [%memory];"
DONE = "cp.async.bulk.commit_group; cp.async.bulk.wait_group.read 0;"
MAP = "mov.b64 %rd0, maps; cvta.param.u64 %rd0, %rd0;"
AT = 8192


def box_of(tensor, x, y, columns, rows):
    """What lies outside of the tensor is zero."""
    box = np.zeros((rows, columns), tensor.dtype)
    for row, column in np.ndindex(rows, columns):
        if 0 <= y + row < tensor.shape[0] and 0 <= x + column < tensor.shape[1]:
            box[row, column] = tensor[y + row, x + column]
    return box


def permuted(rows, span):
    """The chunks of rows of as many bytes as the span, as they lie in shared memory, and the other way round."""
    chunks = rows.view(np.uint8).reshape(len(rows), -1, 16)
    order = np.arange(chunks.shape[1])
    each = [chunks[row, order ^ (row * span // 128) % (span // 16)] for row in range(len(rows))]
    return np.concatenate(each).reshape(-1) if span > 16 else chunks.reshape(-1)


def map_of(tensor, columns, rows, span=16, row_count=None):
    size = tensor.itemsize
    dims, strides = (tensor.shape[1], row_count or tensor.shape[0]), (size, tensor.strides[0])
    return TensorMap(tensor.ctypes.data, size, dims, strides, (columns, rows), span)


def load(x, y, bytes, barrier=AT, to="%memory", expected=None):
    expect = f"mbarrier.arrive.expect_tx.shared::cta.b64 _, [%memory+{AT}], {bytes if expected is None else expected};"
    operands = f"[{to}], [%rd0, {{%r6, %r7}}], [%r5];"
    return f"{MAP} add.u32 %r5, %memory, {barrier}; mov.u32 %r6, {x}; mov.u32 %r7, {y}; {expect} {LOAD} {operands}"


def copy_out(array, bytes):
    """Shared memory to an array."""
    return f"""mul.wide.u32 %rd1, %thread, 4; add.u64 %rd1, %rd1, {array}; mad.lo.u32 %r1, %thread, 4, %memory; mov.u32 %r0, 0;
    OUT: ld.shared.u32 %r2, [%r1]; st.global.u32 [%rd1], %r2; add.u32 %r1, %r1, {128}; add.u64 %rd1, %rd1, {128};
    add.u32 %r0, %r0, {128}; setp.lt.u32 %p2, %r0, {bytes}; @%p2 bra OUT;"""


@pytest.fixture
def tensor(on_16_bytes):
    """Rows of 48 32-bit numbers, unlike all others."""
    return on_16_bytes(np.arange(1, 20 * 48 + 1, dtype=np.uint32).reshape(20, 48))


@pytest.fixture
def load_box(run_hopper, on_16_bytes):
    def run(tensor, map, x, y, **changed):
        out = on_16_bytes(np.zeros(map.box_bytes, np.uint8))
        body = FIRST + INIT.format(at=AT) + load(x, y, map.box_bytes, **changed) + "AFTER: bar.sync 0;" + WAIT.format(at=AT)
        run_hopper(body + copy_out("%array1", map.box_bytes), [tensor, out], [map], threads=32, shared_bytes=AT + 16)
        return out

    return run


@pytest.mark.parametrize("span", [16, 32, 64, 128])
@pytest.mark.parametrize(("x", "y"), [(0, 0), (8, 3), (-3, -2), (40, 15), (-100, 0), (0, 20)])
def test_boxes(load_box, tensor, span, x, y):
    columns = span // 4 if span > 16 else 8
    got = load_box(tensor, map_of(tensor, columns, 12, span), x, y)
    np.testing.assert_array_equal(got, permuted(box_of(tensor, x, y, columns, 12), span))


def test_three_dimensions(run_hopper, on_16_bytes):
    tensor = on_16_bytes(np.arange(4 * 6 * 16, dtype=np.uint16).reshape(4, 6, 16))
    map = TensorMap(tensor.ctypes.data, 2, (16, 6, 4), (2, 32, 192), (8, 4, 2))
    out = on_16_bytes(np.zeros(128, np.uint8))
    copy = load(12, 3, map.box_bytes).replace(".2d", ".3d").replace("{%r6, %r7}", "{%r6, %r7, 3}")
    body = FIRST + INIT.format(at=AT) + copy + "AFTER: bar.sync 0;" + WAIT.format(at=AT) + copy_out("%array1", 128)
    run_hopper(body, [tensor, out], [map], threads=32, shared_bytes=AT + 16)
    want = np.zeros((2, 4, 8), np.uint16)
    want[0, :3, :4] = tensor[3, 3:, 12:]
    np.testing.assert_array_equal(out, want.reshape(-1).view(np.uint8))


CLUSTER_SYNC = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;"


@pytest.mark.parametrize("mask", [1, 2, 3])
def test_multicast(run_hopper, on_16_bytes, tensor, mask):
    """The first block copies to those of the mask, each of which waits for the bytes; the other one's memory stays as it was."""
    map = map_of(tensor, 32, 8, 128)
    out = on_16_bytes(np.zeros(2 * map.box_bytes, np.uint8))
    bytes_of_rank = (
        f"mov.u32 %r8, %cluster_ctarank; shr.u32 %r9, {mask}, %r8; and.b32 %r9, %r9, 1; mul.lo.u32 %r9, %r9, {map.box_bytes};"
    )
    expect = f"@%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%memory+{AT}], %r9;"
    copy = f"""setp.ne.or.u32 %p3, %r8, 0, %p4; @%p3 bra COPIED; {MAP} add.u32 %r5, %memory, {AT}; mov.u16 %rs1, {mask};
    {LOAD}.multicast::cluster [%memory], [%rd0, {{0, 4}}], [%r5], %rs1; COPIED:"""
    address = f"mul.wide.u32 %rd5, %r8, {map.box_bytes}; add.u64 %array1, %array1, %rd5;"
    body = (
        FIRST
        + INIT.format(at=AT)
        + "AFTER: not.pred %p4, %p0;"
        + bytes_of_rank
        + expect
        + CLUSTER_SYNC
        + copy
        + WAIT.format(at=AT)
    )
    body += address + copy_out("%array1", map.box_bytes) + CLUSTER_SYNC
    run_hopper(body, [tensor, out], [map], threads=32, blocks=2, cluster=2, shared_bytes=AT + 16)
    copied, poison = permuted(box_of(tensor, 0, 4, 32, 8), 128), np.full(map.box_bytes, 0xCD, np.uint8)
    for rank in range(2):
        np.testing.assert_array_equal(out.reshape(2, -1)[rank], copied if mask >> rank & 1 else poison)


def test_mbarriers_of_a_cluster_are_made_visible_to_copies(run_hopper, tensor):
    init = INIT.format(at=AT).replace("fence.mbarrier_init.release.cluster;", "")
    body = FIRST + init + load(0, 0, 512) + "AFTER: bar.warp.sync -1;" + WAIT.format(at=AT)
    maps = [map_of(tensor, 32, 4, 128)]
    run_hopper(body, [tensor], maps, threads=32, shared_bytes=AT + 16)
    with pytest.raises(
        PtxFault, match=r"thread 0 initialised this mbarrier without a fence\.mbarrier_init or fence\.proxy\.async"
    ):
        run_hopper(body, [tensor], maps, threads=32, blocks=2, cluster=2, shared_bytes=AT + 16)


def fill(bytes):
    """Words 1, 2, 3, ... in shared memory."""
    return f"""mad.lo.u32 %r1, %thread, 4, %memory; add.u32 %r2, %thread, 1; mov.u32 %r0, 0;
    FILL: st.shared.u32 [%r1], %r2; add.u32 %r1, %r1, {128}; add.u32 %r2, %r2, 32;
    add.u32 %r0, %r0, {128}; setp.lt.u32 %p2, %r0, {bytes}; @%p2 bra FILL;"""


VISIBLE = "fence.proxy.async.shared::cta; bar.sync 0;"


@pytest.fixture
def store_box(run_hopper):
    def run(tensor, map, x, y, before=VISIBLE, done=DONE, store=STORE):
        body = fill(map.box_bytes) + before + FIRST + MAP + store.format(x=x, y=y) + done + "AFTER:"
        run_hopper(body, [tensor], [map], threads=32, shared_bytes=AT)

    return run


@pytest.mark.parametrize("span", [16, 32, 64, 128])
@pytest.mark.parametrize(("x", "y"), [(0, 0), (8, 3), (-3, -2), (40, 15), (-100, 0)])
def test_stores_are_clipped(store_box, on_16_bytes, span, x, y):
    tensor, columns, rows = on_16_bytes(np.zeros((20, 48), np.uint32)), span // 4 if span > 16 else 12, 16
    store_box(tensor, map_of(tensor, columns, rows, span), x, y)
    image = np.arange(1, rows * columns + 1, dtype=np.uint32)
    # A permutation that is its own inverse.
    box = permuted(image.reshape(rows, columns), span).view(np.uint32).reshape(rows, columns)
    want = np.zeros((20, 48), np.uint32)
    for row, column in np.ndindex(rows, columns):
        if 0 <= y + row < 20 and 0 <= x + column < 48:
            want[y + row, x + column] = box[row, column]
    np.testing.assert_array_equal(tensor, want)


def test_flat_copies(run_hopper, on_16_bytes):
    source, out = on_16_bytes(np.arange(256, dtype=np.uint32)), on_16_bytes(np.zeros(256, np.uint32))
    body = FIRST + INIT.format(at=AT) + f"add.u32 %r5, %memory, {AT}; add.u64 %array0, %array0, 64;"
    body += f"mbarrier.arrive.expect_tx.shared::cta.b64 _, [%memory+{AT}], 256;"
    body += "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%memory], [%array0], 256, [%r5];" + WAIT.format(
        at=AT
    )
    body += "cp.async.bulk.global.shared::cta.bulk_group [%array1], [%memory+16], 240;" + DONE + "AFTER:"
    run_hopper(body, [source, out], threads=32, shared_bytes=AT + 16)
    np.testing.assert_array_equal(out, np.concatenate([np.arange(20, 80), np.zeros(196)]))


LOAD_FAULTS = {
    "too few bytes expected": (dict(expected=64), r"deadlock: 32 threads wait .*0 of 1 arrivals and -448 bytes missing"),
    "too many bytes expected": (dict(expected=1024), r"deadlock: 32 threads wait .*0 of 1 arrivals and 512 bytes missing"),
    "no barrier there": (dict(barrier=8), r"no mbarrier was initialised at offset 8"),
    "over an mbarrier": (dict(to=f"%memory+{AT}"), r"a bulk copy of shared memory that holds an mbarrier"),
    "misaligned": (dict(to="%memory+64"), r"a swizzle of 128 bytes at shared address 0x440, not a multiple of 1024"),
    "beyond shared memory": (dict(to=f"%memory+{AT + 1024}"), r"shared store of 16 bytes at offset 9216, outside of its"),
}  # fmt: skip


@pytest.mark.parametrize("name", LOAD_FAULTS)
def test_faults_of_loads(run_hopper, tensor, name):
    changed, message = LOAD_FAULTS[name]
    body = FIRST + INIT.format(at=AT) + load(0, 0, 512, **changed) + "AFTER: bar.sync 0;" + WAIT.format(at=AT)
    with pytest.raises(PtxFault, match=message):
        run_hopper(body, [tensor], [map_of(tensor, 32, 4, 128)], threads=32, shared_bytes=AT + 1024)


def test_a_map_of_more_rows_than_there_are(load_box, tensor):
    with pytest.raises(PtxFault, match=r"global load of 128 bytes at 0x\w+: 0 bytes beyond the end of array 0"):
        load_box(tensor, map_of(tensor, 32, 4, 128, row_count=21), 0, 18)


MAP_FAULTS = {
    "strides": (dict(strides=(4, 100)), r"multiples of 16 needed"),
    "a large box": (dict(box=(4, 257)), r"a box of 1 to 256 elements a side"),
    "a narrow row": (dict(box=(3, 4)), r"rows of a multiple of 16 bytes needed"),
    "a row beyond the swizzle": (dict(box=(64, 4), swizzle=128), r"box rows of the swizzle's 128 bytes needed, got 256"),
    "three dimensions": (dict(dims=(48, 5, 4), strides=(4, 192, 960), box=(4, 4, 1)), r"2 coordinates for a tensor map of 3"),
}


@pytest.mark.parametrize("name", MAP_FAULTS)
def test_faults_of_maps(load_box, tensor, name):
    changed, message = MAP_FAULTS[name]
    map = map_of(tensor, 4, 4)
    with pytest.raises(PtxFault, match=message):
        load_box(tensor, type(map)(**{**map.__dict__, **changed}), 0, 0)


def test_what_is_no_map(run_hopper, tensor):
    body = FIRST + INIT.format(at=AT) + load(0, 0, 512) + "AFTER:"
    with pytest.raises(PtxFault, match=r"no tensor map is there \(at 0x\w+\)"):
        run_hopper(body, [tensor], threads=32, shared_bytes=AT + 16)


TOO_SOON = {
    "reads before the phase": ("ld.shared.u32 %r2, [%memory+8];", r"access to shared memory that a bulk copy has yet to fill"),
    "writes before the phase": ("st.shared.u32 [%memory+8], %r2;", r"access to shared memory that a bulk copy has yet to fill"),
    "fills twice": (
        load(0, 0, 512).replace("arrive.expect_tx", "expect_tx").replace(" _,", ""),
        r"a bulk copy of shared memory that a",
    ),
    "returns": ("bra AFTER;", r"all threads returned during this bulk copy: nobody waited for its mbarrier phase"),
}


@pytest.mark.parametrize("name", TOO_SOON)
def test_what_comes_before_the_phase(run_hopper, tensor, name):
    after, message = TOO_SOON[name]
    body = FIRST + INIT.format(at=AT) + load(0, 0, 512) + after + "AFTER:"
    with pytest.raises(PtxFault, match=message):
        run_hopper(body, [tensor], [map_of(tensor, 32, 4, 128)], threads=32, shared_bytes=AT + 16)


STORE_FAULTS = {
    "no fence": (
        dict(before="bar.sync 0;"),
        r"a bulk copy of shared memory that thread 0 wrote without a fence\.proxy\.async after it",
    ),
    "no wait": (
        dict(done="cp.async.bulk.commit_group;"),
        r"all threads returned during this bulk copy: nobody waited for its group",
    ),
    "no commit": (dict(done="cp.async.bulk.wait_group.read 0;"), r"all threads returned during this bulk copy: nobody waited"),
    "overwritten": (
        dict(done="st.shared.u32 [%memory], %r0;" + DONE),
        r"\(st\.shared.*that wgmma or a bulk copy reads: nobody waited",
    ),
    "beyond shared memory": (dict(store=STORE.replace("[%memory]", f"[%memory+{AT}]")), r"shared load of 16 bytes at offset"),
}


@pytest.mark.parametrize("name", STORE_FAULTS)
def test_faults_of_stores(store_box, tensor, name):
    changed, message = STORE_FAULTS[name]
    with pytest.raises(PtxFault, match=message):
        store_box(tensor, map_of(tensor, 32, 4, 128), 0, 0, **changed)


def test_a_fill_of_memory_that_threads_wrote_needs_their_fence(run_hopper, tensor):
    copy = FIRST + INIT.format(at=AT) + load(0, 0, 512) + "AFTER: bar.sync 0;" + WAIT.format(at=AT)
    run_hopper(fill(512) + VISIBLE + copy, [tensor], [map_of(tensor, 32, 4, 128)], threads=32, shared_bytes=AT + 16)
    with pytest.raises(PtxFault, match=r"that thread 0 wrote without a fence\.proxy\.async after it"):
        run_hopper(fill(512) + copy, [tensor], [map_of(tensor, 32, 4, 128)], threads=32, shared_bytes=AT + 16)


def test_threads_leave_mbarriers_alone(run_hopper, tensor):
    for access in ("ld.shared.u32 %r2, [%memory+12];", "st.shared.v4.u32 [%memory], {%r2, %r2, %r2, %r2};"):
        body = FIRST + INIT.format(at=8) + "fence.proxy.async;" + access + load(0, 0, 512) + "AFTER:"
        with pytest.raises(PtxFault, match=r"access to shared memory that holds an mbarrier"):
            run_hopper(body, [tensor], [map_of(tensor, 32, 4, 128)], threads=32, shared_bytes=AT + 16)


def test_bytes_of_cp_async_are_written_when_they_are_waited_for(run_hopper, tensor, on_16_bytes):
    """A fence before the wait comes too early."""
    out = on_16_bytes(np.zeros(64, np.uint32))
    copy = "mul.wide.u32 %rd1, %thread, 16; add.u64 %rd1, %rd1, %array0; mad.lo.u32 %r1, %thread, 16, %memory;"
    copy += "cp.async.cg.shared.global [%r1], [%rd1], 16; {0} cp.async.wait_all; {1} bar.warp.sync -1;"
    store = "cp.async.bulk.global.shared::cta.bulk_group [%array1], [%memory], 256;"
    run_hopper(copy.format("", "fence.proxy.async;") + FIRST + store + DONE + "AFTER:", [tensor, out], threads=32)
    np.testing.assert_array_equal(out, tensor.reshape(-1)[:64])
    with pytest.raises(PtxFault, match=r"that thread 0 wrote without a fence\.proxy\.async after it"):
        run_hopper(copy.format("fence.proxy.async;", "") + FIRST + store + DONE + "AFTER:", [tensor, out], threads=32)


def test_prefetches_do_nothing(run_hopper, tensor):
    run_hopper(MAP + "prefetch.tensormap [%rd0];", [tensor], [map_of(tensor, 32, 4, 128)], threads=32)
