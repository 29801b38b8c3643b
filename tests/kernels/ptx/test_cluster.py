"""Blocks of a cluster: places, each other's shared memory and mbarriers, and the barrier between them."""

import numpy as np
import pytest

from halfbyte.testing.ptx import Memory, PtxFault, launch, parse

FIRST = "setp.eq.u32 %p0, %thread, 0;"
CLUSTER_SYNC = "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;"
PEER = "mov.u32 %r8, %cluster_ctarank; xor.b32 %r9, %r8, 1; mapa.shared::cluster.u32 %r7, %memory, %r9;"


def store(register):
    return f"""mov.u32 %r12, %ctaid.x; mov.u32 %r13, %ntid.x; mad.lo.u32 %r12, %r12, %r13, %thread;
    mul.wide.u32 %rd1, %r12, 4; add.u64 %rd1, %rd1, %array0; st.global.u32 [%rd1], {register};"""


@pytest.fixture
def run(run_hopper, on_16_bytes):
    def run_threads(body, threads=32, blocks=2, cluster=2):
        out = on_16_bytes(np.zeros(blocks * threads, np.uint32))
        run_hopper(body, [out], threads=threads, blocks=blocks, cluster=cluster)
        return out.reshape(blocks, threads)

    return run_threads


@pytest.mark.parametrize("blocks", [4, 132])
def test_places_along_x(run, blocks):
    names = ("%clusterid.x", "%nclusterid.x", "%cluster_ctaid.x", "%cluster_nctaid.x", "%cluster_ctarank", "%cluster_nctarank")
    for name, want in zip(
        names, (lambda b: b // 2, lambda b: blocks // 2, lambda b: b % 2, lambda b: 2, lambda b: b % 2, lambda b: 2)
    ):
        got = run(f"mov.u32 %r1, {name};" + store("%r1"), blocks=blocks)
        np.testing.assert_array_equal(got[:, 0], [want(block) for block in range(blocks)], name)


def test_places_in_three_dimensions(on_16_bytes):
    """Each block writes its rank, cluster and own coordinates where its coordinates in the grid say."""
    out = on_16_bytes(np.zeros((2, 6, 4, 3), np.uint32))
    names = ("%ctaid.x", "%ctaid.y", "%ctaid.z", "%cluster_ctarank", "%clusterid.y", "%cluster_ctaid.y")
    reads = "".join(f"mov.u32 %r{index}, {name};" for index, name in enumerate(names))
    text = f""".version 9.0
    .target sm_90a
    .address_size 64
    .visible .entry k(.param .u64 out)
    .reqnctapercluster 2, 3, 1
    {{ .reg .b32 %r<8>; .reg .b64 %rd<3>; {reads} mad.lo.u32 %r6, %r2, 6, %r1; mad.lo.u32 %r6, %r6, 4, %r0; 
    mul.lo.u32 %r6, %r6, 12; ld.param.u64 %rd0, [out]; cvt.u64.u32 %rd1, %r6; add.u64 %rd0, %rd0, %rd1; st.global.u32 [%rd0], %r3;
    st.global.u32 [%rd0+4], %r4; st.global.u32 [%rd0+8], %r5; ret; }}"""
    memory = Memory([("out", out.ctypes.data, out.nbytes)])
    launch(parse(text), "k", (4, 6, 2), 32, 0, out.ctypes.data.to_bytes(8, "little"), memory)
    for z, y, x in np.ndindex(2, 6, 4):
        np.testing.assert_array_equal(out[z, y, x], [y % 3 * 2 + x % 2, y // 3, y % 3])
    with pytest.raises(ValueError, match=r"grid: whole clusters of \(2, 3, 1\) blocks needed, got \(4, 5, 2\)"):
        launch(parse(text), "k", (4, 5, 2), 32, 0, bytes(8), memory)


def test_shared_memory_of_the_other_block(run):
    own = "mad.lo.u32 %r1, %thread, 4, %memory; mov.u32 %r2, %ctaid.x; mad.lo.u32 %r3, %r2, 1000, %thread;"
    own += "st.shared.u32 [%r1], %r3;"
    there = PEER + "mad.lo.u32 %r1, %thread, 4, %r7; ld.shared::cluster.u32 %r4, [%r1];"
    got = run(own + CLUSTER_SYNC + there + store("%r4") + CLUSTER_SYNC, blocks=6)
    np.testing.assert_array_equal(got, [[1000 * (block ^ 1) + thread for thread in range(32)] for block in range(6)])


def test_generic_addresses_reach_the_other_block(run):
    own = "mad.lo.u32 %r1, %thread, 4, %memory; st.shared.u32 [%r1], %thread; cvt.u64.u32 %rd3, %r1; cvta.shared.u64 %rd3, %rd3;"
    there = PEER + "mapa.u64 %rd4, %rd3, %r9; add.u32 %r5, %r8, 70; st.u32 [%rd4], %r5;"
    got = run(own + CLUSTER_SYNC + there + CLUSTER_SYNC + "ld.u32 %r4, [%rd3];" + store("%r4"))
    np.testing.assert_array_equal(got, [[71] * 32, [70] * 32])


INIT = FIRST + "@%p0 mbarrier.init.shared::cta.b64 [%memory], 32;"
VISIBLE = "fence.mbarrier_init.release.cluster;"
REMOTE_ARRIVE = PEER + "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r7];"
WAIT = "WAIT: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p1, [%memory], 0; @!%p1 bra WAIT;"


def test_arrivals_at_the_other_block(run):
    """Only the second block's barrier gets what it expects from the first block, which goes on at once."""
    body = INIT + VISIBLE + CLUSTER_SYNC + PEER + "setp.eq.u32 %p2, %r8, 1; @%p2 bra SECOND;" + REMOTE_ARRIVE + "bra DONE;"
    body += "SECOND: " + WAIT + "DONE: mov.u32 %r4, 9;" + store("%r4") + CLUSTER_SYNC
    assert (run(body) == 9).all()


EXPECT = FIRST + "@%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%memory], 512;"
SEND = """add.u32 %r1, %r7, 64; mad.lo.u32 %r1, %thread, 16, %r1; mad.lo.u32 %r2, %r8, 1000, %thread; mov.u32 %r3, 7;
st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%r1], {%r3, %r2, %r3, %r3}, [%r7];"""
SENT = INIT.replace(", 32;", ", 1;") + VISIBLE + CLUSTER_SYNC + EXPECT + PEER
RECEIVE = "add.u32 %r1, %memory, 64; mad.lo.u32 %r1, %thread, 16, %r1; ld.shared.u32 %r4, [%r1+4];"


def test_asynchronous_stores_to_the_other_block(run):
    got = run(SENT + SEND + WAIT + RECEIVE + store("%r4") + CLUSTER_SYNC)
    np.testing.assert_array_equal(got, [1000 + np.arange(32), np.arange(32)])


def test_those_who_returned_need_not_come_to_the_barrier(run):
    """Thirty-two of each block's threads return."""
    body = "setp.ge.u32 %p2, %thread, 32; @%p2 exit;" + CLUSTER_SYNC + "mov.u32 %r4, 3;" + store("%r4")
    np.testing.assert_array_equal(run(body, threads=64), [[3] * 32 + [0] * 32] * 2)


UNTIL_IDLE = "mbarrier.try_wait.parity.shared::cta.b64 %p1, [%memory], 0;"

FAULTS = {
    "not visible outside": (
        INIT + CLUSTER_SYNC + REMOTE_ARRIVE,
        r"thread 0 initialised this mbarrier without a fence\.mbarrier_init",
    ),
    "the other block returned": (
        INIT + VISIBLE + CLUSTER_SYNC + PEER + "setp.eq.u32 %p2, %r8, 0; @%p2 exit; " + UNTIL_IDLE + REMOTE_ARRIVE,
        r"of block \(1, 0, 0\): shared memory of block 0 of the cluster, all of whose threads have returned",
    ),
    "sent and not waited for": (SENT + SEND + RECEIVE, r"that a bulk copy has yet to fill: its mbarrier phase is not complete"),
    "counted in another block": (SENT + SEND.replace("[%r7]", "[%memory]"), r"st\.async to one block and counted at an mbarrier of"),
    "no such block": ("mapa.shared::cluster.u32 %r7, %memory, 2;", r"mapa: block 2 of a cluster of 2"),
    "beyond its shared memory": (
        PEER + "ld.shared::cluster.u32 %r1, [%r7+2048];",
        r"shared load of 4 bytes at offset 2048, outside",
    ),
    "as if it were its own": (
        PEER + "ld.shared::cta.u32 %r1, [%r7];",
        r"shared load of 4 bytes at offset \d+, outside of its 2048",
    ),
    "a wait alone": ("barrier.cluster.wait;", r"barrier\.cluster\.wait without a barrier\.cluster\.arrive before"),
    "two arrivals": ("barrier.cluster.arrive; barrier.cluster.arrive;", r"a second barrier\.cluster\.arrive without"),
    "part of a warp": (
        "setp.lt.u32 %p2, %thread, 8; @%p2 bra END;" + CLUSTER_SYNC + "END:",
        r"24 of the 32 threads of its warp are here",
    ),
    "a block that never comes": (
        PEER + INIT + VISIBLE + "setp.eq.u32 %p2, %r8, 1; @%p2 bra STUCK;" + CLUSTER_SYNC + "ret; STUCK:" + WAIT,
        r"deadlock: 32 threads wait at line \d+",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults(run, name):
    body, message = FAULTS[name]
    with pytest.raises(PtxFault, match=message):
        run(body)


def test_a_warp_elects_one_thread_and_shares_registers(run):
    body = "setmaxnreg.inc.sync.aligned.u32 232; elect.sync %r1|%p1, -1; selp.u32 %r2, 1, 0, %p1;"
    body += "shl.b32 %r1, %r1, 8; or.b32 %r2, %r2, %r1;"
    np.testing.assert_array_equal(run(body + store("%r2")), [[1] + [0] * 31] * 2)
    with pytest.raises(PtxFault, match=r"divergent setmaxnreg: 8 of the 32 threads"):
        run("setp.lt.u32 %p2, %thread, 8; @%p2 setmaxnreg.dec.sync.aligned.u32 40;")
