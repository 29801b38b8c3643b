"""Threads that part and meet again: kernels that nvcc compiled, and control flow as it lays it out, against Python."""

import struct

import numpy as np
import pytest

from halfbyte.testing.ptx import Memory, PtxFault, launch, parse

HEAD = ".version 9.0\n.target sm_80\n.address_size 64\n"


def run_text(body, out, threads=32):
    """One block of an entry whose argument is the address of an output."""
    text = (
        f"{HEAD}.visible .entry k(.param .u64 out) {{ .reg .b64 %base, %at; .reg .b32 %lane, %x, %y; .reg .pred p, q; {body} }}"
    )
    launch(
        parse(text), "k", (1, 1, 1), threads, 0, struct.pack("Q", out.ctypes.data), Memory([("out", out.ctypes.data, out.nbytes)])
    )


STORE = "ld.param.u64 %base, [out]; mul.wide.u32 %at, %lane, 4; add.s64 %at, %at, %base; st.global.u32 [%at], %x; ret;"


def steps_of(n):
    steps = 0
    while n > 1 and steps < 20:
        if n % 2 == 0:
            n //= 2
        elif n % 3 == 0:
            n //= 3
            if n % 5 == 0:
                break
        else:
            n = 3 * n + 1
        steps += 1
    return steps


def test_uneven_loops(run_kernel, on_16_bytes):
    values = on_16_bytes(np.random.default_rng(3).integers(-5, 200, 64).astype(np.int32))
    out = on_16_bytes(np.zeros(64, np.int32))
    rounds = 9
    run_kernel("control", "uneven_loops", {"in": values, "out": out}, (rounds,), threads=64)
    sums = [0] * 64
    for r in range(rounds):
        steps = [steps_of(int(value) + r) for value in values]
        for lane in range(64):
            sums[lane] += steps[lane ^ (1 + r % 31)]
            if steps[lane] % 3 != 1:
                sums[lane] += 1000
                sums[lane] ^= 5 * (steps[lane] % 3 == 2)
    np.testing.assert_array_equal(out, sums)


def chosen(value):
    quotient = abs(value) // 3 * (1 if value >= 0 else -1)
    remainder = abs(value) % 7 * (1 if value >= 0 else -1)
    cases = [value * 3, value - 7, ~value ^ 0x55, 0x55, quotient, remainder, value << 2, value >> 1, -value]
    return cases[value & 15] if value & 15 < len(cases) else 1


def test_switch(run_kernel, on_16_bytes):
    values = on_16_bytes(np.random.default_rng(4).integers(-100, 100, 32).astype(np.int32))
    out = on_16_bytes(np.zeros(32, np.int32))
    run_kernel("control", "switch_by_lane", {"in": values, "out": out})
    np.testing.assert_array_equal(out, [chosen(value) for value in values[::-1].tolist()])


@pytest.mark.parametrize("blocks", [1, 5, 40])
def test_barriers_are_of_one_block(run_kernel, on_16_bytes, blocks):
    values = on_16_bytes(np.random.default_rng(5).integers(-1000, 1000, blocks * 128).astype(np.int32))
    out = on_16_bytes(np.zeros(blocks, np.int32))
    run_kernel("control", "sum_across_warps", {"in": values, "out": out}, grid=(blocks, 1, 1), threads=128, shared_bytes=512)
    np.testing.assert_array_equal(out, values.reshape(blocks, 128).sum(1))


def test_a_cold_block_at_the_end_comes_back_before_the_others_go_on():
    out = np.zeros(32, np.uint32)
    body = """mov.u32 %lane, %laneid; mov.u32 %x, %lane; setp.lt.u32 p, %lane, 5; @p bra COLD;
    JOIN: shfl.sync.bfly.b32 %x, %x, 1, 31, -1;"""
    run_text(body + STORE + "COLD: add.u32 %x, %x, 100; bra.uni JOIN;", out)
    want = np.arange(32) + 100 * (np.arange(32) < 5)
    np.testing.assert_array_equal(out, want[np.arange(32) ^ 1])


def test_a_loop_with_two_ways_back_meets_at_its_head():
    out = np.zeros(32, np.uint32)
    body = """mov.u32 %lane, %laneid; mov.u32 %x, %lane; mov.u32 %y, 0;
    HEAD: shfl.sync.bfly.b32 %x, %x, 1, 31, -1; add.u32 %y, %y, 1; setp.ge.u32 p, %y, 6; @p bra DONE;
    and.b32 %lane, %x, 3; setp.eq.u32 q, %lane, 0; @q bra HEAD; add.u32 %x, %x, 1; bra.uni HEAD;
    DONE: mov.u32 %lane, %laneid;"""
    run_text(body + STORE, out)
    want = np.arange(32)
    for turn in range(6):
        want = want[np.arange(32) ^ 1]
        if turn < 5:
            want = want + (want % 4 != 0)
    np.testing.assert_array_equal(out, want)


def test_branch_tables():
    out = np.zeros(32, np.uint32)
    body = """mov.u32 %lane, %laneid; and.b32 %y, %lane, 3; TARGETS: .branchtargets A, B, C, A;
    brx.idx %y, TARGETS; A: mov.u32 %x, 10; bra JOIN; B: mov.u32 %x, 20; bra JOIN; C: mov.u32 %x, 30; JOIN:"""
    run_text(body + STORE, out)
    np.testing.assert_array_equal(out, np.resize([10, 20, 30, 10], 32))


def test_predicated_exit_and_trap():
    out = np.zeros(32, np.uint32)
    head = "mov.u32 %lane, %laneid; mov.u32 %x, 7; setp.lt.u32 p, %lane, 3;"
    run_text(head + "@p exit;" + STORE, out)
    np.testing.assert_array_equal(out, 7 * (np.arange(32) >= 3))
    with pytest.raises(PtxFault, match=r"k, PTX line 4 \(@!p trap\), thread 3 of block \(0, 0, 0\): trap"):
        run_text(head + "@!p trap;" + STORE, out)
