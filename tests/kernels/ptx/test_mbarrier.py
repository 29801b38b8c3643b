"""mbarrier and numbered barriers: who goes on when, and what is said of those who never do."""

import numpy as np
import pytest

from halfbyte.testing.ptx import PtxFault

FIRST = "setp.eq.u32 %p0, %thread, 0;"
SYNC = "bar.sync 0;"


def init(count, at=0):
    return FIRST + f"@%p0 mbarrier.init.shared::cta.b64 [%memory+{at}], {count};"


def arrive(predicate="", at=0, count="", state="_"):
    return f"{predicate} mbarrier.arrive.shared::cta.b64 {state}, [%memory+{at}]{count};"


def wait(parity, at=0, name="WAIT"):
    return f"{name}: mbarrier.try_wait.parity.shared::cta.b64 %p1, [%memory+{at}], {parity}; @!%p1 bra {name};"


def store(register, array="%array0"):
    return f"mul.wide.u32 %rd1, %thread, 4; add.u64 %rd1, %rd1, {array}; st.global.u32 [%rd1], {register};"


@pytest.fixture
def run(run_hopper, on_16_bytes):
    def run_threads(body, threads=64, blocks=1):
        out = on_16_bytes(np.zeros(blocks * threads, np.uint32))
        run_hopper(body, [out], threads=threads, blocks=blocks)
        return out

    return run_threads


def test_roles_take_turns(run):
    """A producer of one thread and a consumer of a warp hand ten numbers over through two slots."""
    body = init(1) + "@%p0 mbarrier.init.shared::cta.b64 [%memory+8], 1;"
    body += "".join(f"@%p0 mbarrier.init.shared::cta.b64 [%memory+{16 + 8 * slot}], 32;" for slot in range(2)) + SYNC
    slot = """and.b32 %r1, %r0, 1; shr.u32 %r2, %r0, 1; and.b32 %r2, %r2, 1;
    mad.lo.u32 %r3, %r1, 8, %memory; mad.lo.u32 %r4, %r1, 4, %memory;"""
    body += f"""mov.u32 %r0, 0; mov.u32 %r6, 0; setp.ge.u32 %p2, %thread, 32; @%p2 bra CONSUMER;
    @!%p0 bra DONE;
    PRODUCE: {slot} xor.b32 %r5, %r2, 1;
    FREE: mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r3+16], %r5; @!%p1 bra FREE;
    mad.lo.u32 %r5, %r0, %r0, 7; st.shared.u32 [%r4+64], %r5; mbarrier.arrive.shared::cta.b64 _, [%r3];
    add.u32 %r0, %r0, 1; setp.lt.u32 %p3, %r0, 10; @%p3 bra PRODUCE; bra DONE;
    CONSUMER: {slot}
    FULL: mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r3], %r2; @!%p1 bra FULL;
    ld.shared.u32 %r5, [%r4+64]; mad.lo.u32 %r6, %r6, 3, %r5; mbarrier.arrive.shared::cta.b64 _, [%r3+16];
    add.u32 %r0, %r0, 1; setp.lt.u32 %p3, %r0, 10; @%p3 bra CONSUMER;
    DONE:"""
    sum = 0
    for number in range(10):
        sum = 3 * sum + number * number + 7
    np.testing.assert_array_equal(run(body + store("%r6")), [0] * 32 + [sum] * 32)


def test_counts_and_states(run):
    body = init(100) + SYNC + "setp.ge.u32 %p2, %thread, 32;" + arrive("@!%p2", count=", 2", state="%rd2")
    body += arrive("@%p2", state="%rd2") + arrive("@%p0", count=", 4", state="%rd2")
    body += "AGAIN: mbarrier.test_wait.shared::cta.b64 %p1, [%memory], %rd2; @!%p1 bra AGAIN;"
    body += "mbarrier.test_wait.parity.shared::cta.b64 %p3, [%memory], 0; selp.u32 %r1, 1, 0, %p3;"
    assert (run(body + store("%r1")) == 1).all()


def test_waiting_may_give_up_when_nobody_else_can_run(run):
    body = init(64) + SYNC + "mbarrier.try_wait.parity.shared::cta.b64 %p1, [%memory], 0; selp.u32 %r1, 1, 0, %p1;"
    body += arrive() + wait(0)
    assert (run(body + store("%r1")) == 0).all()


def test_the_phase_before_the_first_is_complete(run):
    assert (run(init(1) + SYNC + wait(1) + "mov.u32 %r1, 5;" + store("%r1")) == 5).all()


def test_numbered_barriers_let_producers_go_on(run):
    body = """setp.ge.u32 %p2, %thread, 32; @%p2 bra CONSUMER; mul.lo.u32 %r1, %thread, 3; mad.lo.u32 %r2, %thread, 4, %memory;
    st.shared.u32 [%r2], %r1; mov.u32 %r3, 5; bar.arrive %r3, 64; mov.u32 %r4, 1; bra DONE;
    CONSUMER: mov.u32 %r3, 64; bar.sync 5, %r3; mad.lo.u32 %r2, %lane, 4, %memory; ld.shared.u32 %r4, [%r2]; DONE:"""
    np.testing.assert_array_equal(run(body + store("%r4")), [1] * 32 + list(range(0, 96, 3)))


def test_threads_of_a_warp_come_one_by_one_where_the_barrier_is_not_aligned(run):
    body = "setp.lt.u32 %p2, %lane, 7; @%p2 bra FEW; barrier.sync 3; bra DONE; FEW: mov.u32 %r4, 2; barrier.sync 3; DONE:"
    np.testing.assert_array_equal(run("mov.u32 %r4, 1;" + body + store("%r4")), np.where(np.arange(64) % 32 < 7, 2, 1))


FAULTS = {
    "wrong parity": (
        init(64) + SYNC + arrive() + wait(1),
        r"deadlock: 64 threads wait at line \d+ \(mbarrier at offset 0 of block \(0, 0, 0\), phase 1: 64 of 64 arrivals and 0",
    ),
    "one arrival too few": (init(65) + SYNC + arrive() + wait(0), r"phase 0: 1 of 65 arrivals and 0 bytes missing"),
    "one arrival too many": (init(63) + SYNC + arrive(), r"64 arrivals at an mbarrier that expects no more than 63"),
    "bytes that never come": (
        init(1) + SYNC + "@%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%memory], 128;" + wait(0),
        r"0 of 1 arrivals and 128 bytes",
    ),
    "not initialised": (init(1) + SYNC + arrive(at=8), r"thread 0 .*no mbarrier was initialised at offset 8"),
    "initialised twice": (init(1) + init(1), r"mbarrier\.init of an mbarrier that was not invalidated"),
    "used after its end": (
        init(64) + "@%p0 mbarrier.inval.shared::cta.b64 [%memory];" + SYNC + arrive(),
        r"no mbarrier was initialised",
    ),
    "misaligned": (init(1, at=4), r"shared store of 8 bytes at 0x404, not a multiple of 8"),
    "beyond shared memory": (init(1, at=2048), r"shared store of 8 bytes at offset 2048, outside of its 2048 bytes"),
    "no count": (init(0), r"a count from 1 to 2\^20 - 1 needed, got 0"),
    "a parity of 2": (init(1) + SYNC + wait(2), r"a parity of 0 or 1 needed, got 2"),
    "two barriers at once": (
        "setp.ge.u32 %p2, %thread, 32; @%p2 bra B; bar.sync 1, 64; bra C; B: bar.sync 2, 64; C:",
        r"divergent barrier: 32 threads wait at line \d+, 32 threads wait at line \d+",
    ),
    "too many at a barrier": ("bar.sync 1, 32;", r"64 threads at barrier 1, which counts 32"),
    "the same warp twice": ("bar.arrive 1, 96; bar.sync 1, 96;", r"a second arrival at barrier 1, which is not complete"),
    "no barrier": ("bar.sync 16, 64;", r"barrier 16 of 64 threads: one of 16, of whole warps, needed"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults(run, name):
    body, message = FAULTS[name]
    with pytest.raises(PtxFault, match=message):
        run(body)
