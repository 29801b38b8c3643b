"""bench/mutations over a handful of mutants, and the parts that generate them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, str(ROOT / "bench/mutations")]


def generated(rules, text):
    """(rule, mutated line) of every mutant of a kernel of one line."""
    sys.path.insert(0, str(ROOT / "bench/mutations"))
    try:
        from mutants import mutants_of
        from source import Source
    finally:
        sys.path.pop(0)
    source = Source("kernel.h", f"namespace halfbyte {{\nDEVICE void f(int m, int n, int row, int column) {{\n{text}\n}}\n}}\n")
    return [(mutant.rule, mutant.after) for mutant in mutants_of(source, set(rules))]


@pytest.mark.parametrize(
    ("rule", "line", "mutants"),
    [
        ("barrier", "ptx::barrier();", ["void();"]),
        ("warp_sync", "ptx::warp_sync();", ["void();"]),
        ("commit", "ptx::cp_async_commit();", ["void();"]),
        ("wait", "ptx::cp_async_wait<kStages - 2>();", ["ptx::cp_async_wait<kStages - 2 + 1>();", "void();"]),
        ("valid", "ptx::cp_async_16(to, from, row < m);", ["ptx::cp_async_16(to, from, true);", "ptx::cp_async_16(to, from, false);"]),
        ("statement", "from += stride;", ["void();"]),
        ("statement", "const int row = load(m);", []),
        ("conjunct", "g(row < m && column < n);", ["g(row < m );", "g( column < n);"]),
        ("negation", "g(!row);", ["g(!!row);"]),
        ("predicate", "if (row < m) g();", ["if ((row < m) || true) g();", "if (false) g();"]),
        ("comparison", "g(row < m, column >= n);", ["g(row <= m, column >= n);", "g(row < m, column > n);"]),
        ("comparison", "g(load<Half>(row));", []),
        ("bound", "g(row < m + 1);", ["g(row < m + 1 - 1);"]),
        ("number", "g(row >> 1);", ["g(row >> 2);", "g(row >> 0);"]),
        ("number", "float values[4];", []),
        ("term", "g(row + 8 * m);", ["g(row );", "g( 8 * m);", "g(row - 8 * m);"]),
        ("factor", "g(m * (n + 1) * row);", ["g(m * row);", "g( (n + 1) * row);", "g(m * (n + 1) );"]),
        ("quotient", "g(row / 4);", ["g(row );", "g(row % 4);"]),
        ("bits", "g(row ^ m);", ["g(row );", "g(row | m);"]),
        ("names", "g(row);", ["g(column);"]),
        ("names", "int row = 0;", []),
        ("instruction", "ptx::mma_s4(d, a, b);", ["ptx::mma_u4s4(d, a, b);"]),
        ("dtype", "ptx::store(to, ptx::from_float<T>(x));", ["ptx::store(to, ptx::from_float<Other<T>>(x));"]),
        ("rounding", "g(ptx::round_even(x));", ["g(float(int(x)));"]),
    ],
)  # fmt: skip
def test_each_rule(rule, line, mutants):
    assert [after for found, after in generated({rule}, line) if found == rule] == mutants


def test_code_that_the_shim_never_compiles_has_no_mutants():
    lines = "#if defined(__CUDA_ARCH__)\ng(row + 1);\n#else\ng(column + 2);\n#endif"
    assert {after for _, after in generated({"number"}, lines)} == {"g(column + 3);", "g(column + 1);"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Of eight mutants of the 16-bit product, found in one build."""
    out = tmp_path_factory.mktemp("mutations") / "results.json"
    arguments = ["--files", "w4a16_gemm.h", "--rules", "barrier", "wait", "commit", "valid", "--sample", "8"]
    done = subprocess.run([*COMMAND, *arguments, "--out", str(out), "--work", str(out.parent)], capture_output=True, text=True)
    assert out.exists(), done.stderr
    return json.loads(out.read_text())


def test_a_sample_is_caught_and_the_kernels_as_they_are_pass(results):
    """The command stops with a sentence where the kernels as they are fail their calls."""
    assert len(results["mutants"]) == 8
    assert results["summary"]["outcomes"].get("survived", 0) == 0
    # Barriers, waits and commits that are missing are what the shim reports as faults.
    assert "fault" in results["summary"]["caught_by"]


def test_help_names_the_options_and_gives_examples():
    text = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True).stdout
    assert all(word in text for word in ("--files", "--rules", "--sample", "--jobs", "--out", "python bench/mutations --sample 40"))


def test_every_explanation_names_a_line_that_is_there():
    import tomllib

    entries = tomllib.loads((ROOT / "bench/mutations/explained.toml").read_text()).get("mutants", [])
    for entry in entries:
        assert set(entry) <= {"file", "rules", "line", "becomes", "reason"} and entry["reason"].endswith(".")
        assert entry["line"] in " ".join((ROOT / "csrc/cuda" / entry["file"]).read_text().split()), entry["line"]
