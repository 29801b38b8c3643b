"""Loops of kernels written out by hand."""

import pytest

from halfbyte.testing.sass.disassemble import Instruction, Kernel
from halfbyte.testing.sass.flow import Flow
from halfbyte.testing.sass.opcodes import kind, matrix_shape
from halfbyte.testing.sass.report import report

MATRIX = "IMMA.16832.S8.S8"


def kernel(text, subroutines=None, tables=None):
    """Lines of `label: @predicate opcode operands`; an operand &label becomes the label's offset, as disassembled.

    subroutines: symbol -> labels of its first instruction and of what follows it; tables: label of a jump -> labels it may go to.
    """
    lines = [line.split("#")[0].split() for line in text.strip().splitlines()]
    labels = {line[0][:-1]: f"{16 * i:#x}" for i, line in enumerate(lines) if line[0].endswith(":")}
    instructions = []
    for i, words in enumerate(lines):
        words = words[1:] if words[0].endswith(":") else words
        predicate = words.pop(0) if words[0].startswith("@") else ""
        operands = words[1] if len(words) > 1 else ""
        for label, offset in labels.items():
            operands = operands.replace(f"&{label}", offset)
        instructions.append(Instruction(16 * i, words[0], operands, predicate))
    spans = {name: (int(labels[first], 16), int(labels[last], 16)) for name, (first, last) in (subroutines or {}).items()}
    jumps = {int(labels[at], 16): frozenset(int(labels[to], 16) for to in targets) for at, targets in (tables or {}).items()}
    return Kernel("kernel", tuple(instructions), spans, jumps, registers=32, stack=0, shared=0, local=0)


def counts(found):
    flow = Flow(found)
    return [(loop.depth, len(flow.instructions(loop))) for loop in flow.loops()]


def test_a_straight_kernel_has_no_loop():
    assert counts(kernel("MOV\nEXIT\nend: BRA &end")) == []


def test_a_conditional_block_inside_counts_fully():
    assert counts(kernel("""
        MOV
        top: IADD3
        @P0 BRA &join
        FADD
        FADD
        join: FMUL
        @P1 BRA &top
        EXIT
    """)) == [(1, 6)]  # fmt: skip


def test_an_exit_inside_is_not_left_out():
    assert counts(kernel("top: IADD3\n@P0 EXIT\nFADD\nBRA &top")) == [(1, 4)]


def test_two_ways_back_are_one_loop():
    assert counts(kernel("top: IADD3\n@P0 BRA &top\nFADD\n@P1 BRA &top\nEXIT")) == [(1, 4)]


def test_nested_loops():
    assert counts(kernel("outer: MOV\ninner: FADD\n@P0 BRA &inner\n@P1 BRA &outer\nEXIT")) == [(1, 4), (2, 2)]


def test_a_call_by_offset_is_a_jump():
    found = kernel("top: FADD\n@!P5 CALL.REL.NOINC &out\nBRA &top\nout: FMUL\nEXIT")
    assert counts(found) == [(1, 3)]


def test_a_uniform_branch_may_fall_through():
    assert counts(kernel("top: FADD\nBRA.U UP0,&top\nFMUL\nEXIT")) == [(1, 2)]
    flow = Flow(kernel("FADD\nBRA.U UP0,&out\nFMUL\nout: EXIT"))
    assert flow.successors[0] == {32, 48}


def test_a_subroutine_counts_at_every_call_without_its_padding():
    found = kernel("""
        top: FADD
        CALL.REL.NOINC twice
        @P0 CALL.REL.NOINC twice
        @P1 BRA &top
        EXIT
        twice: IMAD
        CALL.REL.NOINC once
        RET.REL.NODEC
        once: FMUL
        RET.REL.NODEC
        NOP
        end: NOP
    """, {"twice": ("twice", "once"), "once": ("once", "end")})  # fmt: skip
    assert counts(found) == [(1, 4 + 2 * (3 + 2))]


def test_the_targets_of_a_jump_table():
    found = kernel("""
        top: FADD
        jump: BRX R4,-0x10
        case: FMUL
        BRA &join
        FADD
        BRA &join
        other: FADD
        join: @P0 BRA &top
        EXIT
    """, tables={"jump": ("case", "other")})  # fmt: skip
    assert counts(found) == [(1, 6)], "not the block that nothing leads to"


def test_a_number_that_is_no_target():
    assert counts(kernel("MOV\nBAR.SYNC 0x0\ntop: FADD\n@P0 BRA &top\nEXIT")) == [(1, 2)]


def test_the_steady_loop_is_the_innermost_with_the_opcode():
    found = kernel(f"""
        outer: MOV
        inner: {MATRIX}
        FADD
        @P0 BRA &inner
        @P1 BRA &outer
        tail: HMMA.16816.F32
        HMMA.16816.F32
        HMMA.16816.F32
        @P2 BRA &tail
        EXIT
    """)  # fmt: skip
    loop = report(found, "80", "IMMA").loop
    assert (loop.instructions, loop.matrix, loop.depth, loop.entries) == (3, {MATRIX: 1}, 2, 4)
    assert report(found, "80").loop.matrix == {"HMMA.16816.F32": 3}, "without an opcode: the most multiply-adds"
    assert report(found, "80").matrix == {MATRIX: 1, "HMMA.16816.F32": 3}


def test_an_inner_loop_of_known_length_is_part_of_the_one_around_it():
    found = kernel(f"outer: MOV\ninner: {MATRIX}\n@P0 BRA &inner\n@P1 BRA &outer\nEXIT")
    loop = report(found, "80", "IMMA", inner_iterations=3).loop
    assert (loop.instructions, loop.matrix, loop.depth, loop.entries) == (2 + 3 * 2, {MATRIX: 3}, 1, 12)
    unrolled = kernel(f"top: {MATRIX}\n{MATRIX}\n@P0 BRA &top\nEXIT")
    assert report(unrolled, "80", "IMMA", inner_iterations=2) == report(unrolled, "80", "IMMA")


def test_entries_are_of_the_wanted_opcode():
    found = kernel(f"top: {MATRIX}\n{MATRIX}\nHMMA.16816.F32\n@P0 BRA &top\nEXIT")
    assert report(found, "80", "IMMA").loop.per_entry == 4 / 8


@pytest.mark.parametrize(
    ("opcode", "shape"),
    [("IMMA.16864.S4.S4", (16, 8, 64)), ("HMMA.1688.F32", (16, 8, 8)), ("IGMMA.64x256x32.S8.S8", (16, 256, 32)),
     ("OMMA.SF.16864.F32.E2M1.E2M1.UE4M3.4X", (16, 8, 64)), ("QMMA.SF.16832.F32.E4M3.E4M3.E8", (16, 8, 32))],
)  # fmt: skip
def test_matrix_shapes(opcode, shape):
    assert matrix_shape(opcode) == shape
    assert kind(opcode.split(".")[0]) == "matrix"


def test_an_unknown_matrix_shape_is_refused():
    with pytest.raises(ValueError, match="HMMA.NEW"):
        report(kernel("top: HMMA.NEW\n@P0 BRA &top\nEXIT"), "80")


@pytest.mark.parametrize(
    ("base", "predicate", "expected"),
    [("LDS", "", "shared"), ("LDS", "@!PT", "padding"), ("LDGSTS", "@P0", "async copy"), ("LDL", "", "local"),
     ("STL", "", "local"), ("LDG", "", "global"), ("I2FP", "", "conversion"), ("HADD2", "", "float"), ("FFMA", "", "float"),
     ("IMAD", "", "integer"), ("UIADD3", "", "integer"), ("IADD3", "", "integer"), ("IADD", "", "integer"),
     ("UMOV", "", "integer"), ("LOP3", "", "integer"), ("UISETP", "", "integer"), ("BAR", "", "control"),
     ("NOP", "", "padding"), ("S2R", "", "other")],
)  # fmt: skip
def test_classes(base, predicate, expected):
    assert kind(base, predicate) == expected
