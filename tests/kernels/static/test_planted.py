"""Every gate is seen to fail on a kernel that breaks it, and to pass on one that does not."""

from dataclasses import replace
from pathlib import Path

import pytest

from halfbyte.testing.sass import Gate, check

PLANTED = Path(__file__).parent / "planted"


def verdict(cubins, name, arch, **limits):
    gates = [Gate(name, f"^{name}", (arch,), **limits)] if limits else []
    (found,) = check(PLANTED / f"{name}.cu", arch, gates, cubins)
    return found


def test_spills_fail_without_a_gate_of_their_own(cubins):
    (failure,) = verdict(cubins, "spills", "86").failures
    assert "no local memory is allowed" in failure
    assert not verdict(cubins, "known_mix", "86").failures


def test_registers(cubins):
    used = verdict(cubins, "known_mix", "86").report.registers
    assert not verdict(cubins, "known_mix", "86", max_registers=used).failures
    failures = verdict(cubins, "known_mix", "86", max_registers=used - 1).failures
    assert failures == (f"at most {used - 1} registers are allowed, got {used}",)


@pytest.mark.parametrize("arch", ["80", "86", "90a"])
def test_a_loop_of_known_instructions_is_counted(cubins, arch):
    loop = verdict(cubins, "known_mix", arch).report.loop
    assert loop.matrix == {"IMMA.16832.S8.S8": 2}
    known = {"matrix": 2, "shared": 1, "float": 8, "conversion": 4, "async copy": 1}
    assert {name: loop.classes[name] for name in known} == known
    assert loop.classes["control"] == 2, "one barrier, one branch back"
    assert not {"global", "local", "other"} & loop.classes.keys(), "what stands before and after the loop is not in it"
    assert sum(loop.classes.values()) == loop.instructions
    assert (loop.entries, loop.depth) == (8, 1)
    assert loop.per_entry == loop.instructions / 8


def test_instructions_per_entry(cubins):
    got = verdict(cubins, "known_mix", "86").report.loop.per_entry
    assert not verdict(cubins, "known_mix", "86", opcode="IMMA.16832.S8", max_per_entry=got).failures
    (failure,) = verdict(cubins, "known_mix", "86", opcode="IMMA.16832.S8", max_per_entry=got - 0.01).failures
    assert failure.endswith(f"instructions per accumulator entry are allowed, got {got:.2f}")


@pytest.mark.parametrize("arch", ["80", "86", "89"])
def test_int4_is_native(cubins, arch):
    assert not verdict(cubins, "int4_product", arch, opcode="IMMA.16864.S4").failures


def test_int4_is_emulated_from_hopper_on(cubins):
    found = verdict(cubins, "int4_product", "90a", opcode="IMMA.16864.S4")
    assert found.failures == ("IMMA.16864.S4 is needed in a loop, got IMMA.16832.S8.S8",)
    assert found.report.loop.matrix == {"IMMA.16832.S8.S8": 2}, "the subroutine counts at its call"


def test_block_scaled_opcode(cubins):
    assert not verdict(cubins, "nvfp4", "120f", opcode="OMMA.SF.16864", max_depth=2).failures
    with pytest.raises(RuntimeError, match="nvcc .*-arch=sm_90a"):
        verdict(cubins, "nvfp4", "90a")


def test_a_loop_around_the_counted_one_fails(cubins):
    (failure,) = verdict(cubins, "nvfp4", "120f", opcode="OMMA.SF.16864").failures
    assert "nested loops" in failure


def test_matrix_instructions_outside_a_loop_fail(cubins):
    (failure,) = verdict(cubins, "spills", "86", opcode="IMMA").failures[1:]
    assert failure == "IMMA is needed in a loop, got no matrix instruction"


def test_a_gate_that_no_kernel_comes_under_is_refused(cubins):
    gate = Gate("known_mix", "no_such_kernel", ("86",))
    with pytest.raises(ValueError, match="no_such_kernel"):
        check(PLANTED / "known_mix.cu", "86", [gate], cubins)
    assert check(PLANTED / "known_mix.cu", "86", [replace(gate, archs=("89",))], cubins)


def test_a_changed_header_is_compiled_again(cubins, tmp_path):
    source, header = tmp_path / "kernel.cu", tmp_path / "value.h"
    source.write_text('#include "value.h"\nextern "C" __global__ void kernel(int* out) { *out = VALUE; }\n')
    for value in (1, 2):
        header.write_text(f"#define VALUE {value}\n")
        check(source, "86", [], tmp_path / "cubins")
    assert len(list((tmp_path / "cubins").glob("*.cubin"))) == 2
