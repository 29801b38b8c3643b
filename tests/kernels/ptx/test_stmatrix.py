"""stmatrix: where each half of each register goes."""

import numpy as np
import pytest

from halfbyte.testing.ptx import PtxFault

THREADS = 64


def store(count, trans=""):
    """Register i of a lane holds 8 lane + 2i and 8 lane + 2i + 1; row r of matrix i goes to row 8i + r of its warp."""
    numbers = (f"mad.lo.u32 %r1, %thread, 8, {2 * i}; mad.lo.u32 %d{i}, %r1, 65537, 65536;" for i in range(count))
    names = ", ".join(f"%d{i}" for i in range(count))
    address = "mad.lo.u32 %r2, %lane, 16, %memory; mad.lo.u32 %r2, %warp, 512, %r2;"
    return "".join(numbers) + address + f"stmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 [%r2], {{{names}}}; bar.sync 0;"


READ = """mul.wide.u32 %rd1, %thread, 16; add.u64 %rd1, %rd1, %array0; mad.lo.u32 %r3, %thread, 16, %memory;
ld.shared.v4.u32 {%r4, %r5, %r6, %r7}, [%r3]; st.global.v4.u32 [%rd1], {%r4, %r5, %r6, %r7};"""


@pytest.mark.parametrize("trans", ["", ".trans"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_rows(run_hopper, on_16_bytes, count, trans):
    out = on_16_bytes(np.zeros((THREADS // 32, 32, 8), np.uint16))
    run_hopper(store(count, trans) + READ, [out], threads=THREADS)
    for warp, matrix, row, column in np.ndindex(THREADS // 32, count, 8, 8):
        g, column_of_lane = (column, row) if trans else (row, column)
        lane = 32 * warp + 4 * g + column_of_lane // 2
        assert out[warp, 8 * matrix + row, column] == 8 * lane + 2 * matrix + column_of_lane % 2
    assert (out[:, 8 * count :] == 0xCDCD).all()


def test_half_a_warp(run_hopper, on_16_bytes):
    out = on_16_bytes(np.zeros((THREADS // 32, 32, 8), np.uint16))
    with pytest.raises(PtxFault, match=r"divergent stmatrix: 16 of the 32 threads of its warp are here"):
        run_hopper("setp.lt.u32 %p1, %lane, 16; @!%p1 exit;" + store(1), [out], threads=THREADS)
