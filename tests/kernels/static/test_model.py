"""The modelled ratio of issue to tensor clocks, against sums done by hand."""

from collections import Counter

import pytest

from halfbyte.testing.sass.model import issue_over_tensor


@pytest.mark.parametrize(
    ("instructions", "matrix", "arch", "ratio"),
    [
        # 16 x 8 x 64 multiply-adds at 2048 a clock are 4 clocks; four schedulers issue 16 instructions in them.
        (16, {"IMMA.16864.S4.S4": 1}, "89", 1.0),
        (16, {"IMMA.16864.S4.S4": 1}, "80", 2.0),
        # A warp's quarter of m64n128k32, twice, at 4096 a clock: 32 clocks.
        (171, {"QGMMA.64x128x32.F32.E4M3.E4M3": 2}, "90a", 171 / 4 / 32),
        (16, {"IMMA.16832.S8.S8": 1, "HMMA.16816.F32": 1}, "86", 16 / 4 / (4 + 8)),
        (16, {"OMMA.SF.16864.F32.E2M1.E2M1.UE4M3.4X": 1}, "120f", 1.0),
        (16, {"QMMA.SF.16832.F32.E4M3.E4M3.E8": 1}, "120f", 1.0),
        (16, {"QMMA.16832.F32.E4M3.E4M3": 1}, "120f", 0.5),
    ],
)
def test_ratio(instructions, matrix, arch, ratio):
    assert issue_over_tensor(instructions, Counter(matrix), arch) == pytest.approx(ratio)


def test_no_ratio_where_the_rate_is_unknown():
    assert issue_over_tensor(16, Counter({"IMMA.16832.S8.S8": 1}), "100a") is None
    assert issue_over_tensor(16, Counter({"IMMA.16864.S4.S4": 1}), "90a") is None
    assert issue_over_tensor(16, Counter(), "80") is None
