"""The kernels that ship, on a few architectures; `python bench/static_gates.py` holds all of them to all gates."""

from pathlib import Path

import pytest

from halfbyte.testing.sass import GATES, architectures, check
from halfbyte.testing.sass.compile import FLAGS

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "csrc" / "cuda"
CHECKED = [
    ("sm80_gemm_w4a4", "86"),
    ("sm80_gemm_w8a8", "120f"),
    ("sm90_gemm_w8a8", "90a"),
    ("sm90_quantize_act", "90a"),
    ("sm120_gemm_nvfp4", "120f"),
    ("sm120_gemm_nvfp4", "90a"),
    ("sm80_conv2d_w4a4", "86"),
]
EMULATED = {("sm80_gemm_w4a4", "90a"), ("sm120_gemm_nvfp4", "90a"), ("sm80_conv2d_w4a4", "90a")}
PRODUCTS = ("gemm", "conv2d")


@pytest.mark.parametrize(("stem", "arch"), CHECKED)
def test_gates(cubins, stem, arch):
    verdicts = check(SOURCES / f"{stem}.cu", arch, GATES, cubins)
    assert verdicts
    assert [f"{verdict.report.name}: {failure}" for verdict in verdicts for failure in verdict.failures] == []


def test_every_product_has_a_gate_on_every_architecture():
    built = {(stem, arch) for stem, archs in architectures(SOURCES).items() for arch in archs}
    products = {(stem, arch) for stem, arch in built if any(word in stem for word in PRODUCTS)}
    gated = {(gate.source, arch) for gate in GATES for arch in gate.archs}
    assert sorted(products - gated - EMULATED) == [], "add a line to engine/testing/sass/gates.py"
    assert sorted(gated - built) == []


def test_flags_are_those_of_the_build():
    build = (ROOT / "setup.py").read_text()
    assert [flag for flag in FLAGS if f'"{flag}"' not in build] == []
