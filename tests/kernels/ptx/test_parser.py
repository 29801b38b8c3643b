"""PTX text to instructions: scopes, declarations, parameters."""

import pytest

from halfbyte.testing.ptx import UnsupportedPtx, parse
from halfbyte.testing.ptx.control_flow import basic_blocks
from halfbyte.testing.ptx.parser import entry_names

HEAD = ".version 9.0\n.target sm_90a\n.address_size 64\n"
TEXT = (
    HEAD
    + """
.extern .shared .align 1024 .b8 memory[];
.const .align 4 .f32 table[3] = {0f3F800000, 2.5, 0f00000000};
.visible .entry first(
    .param .u64 .ptr .global .align 1 pointer,
    .param .align 8 .b8 pair[12],
    .param .u32 count
)
.maxntid 64, 2, 1
.minnctapersm 1
{
    .reg .pred %p<3>;
    .reg .b32 %r<4>, %extra;
    .loc 1 12 3
    mov.u32 %r1, %tid.x; // a comment; with a semicolon
    @!%p1 bra $L__END;
    { .reg .b32 %r1, t; mov.b32 %r1, 5; { .reg .b32 t; mov.b32 t, %r1; } mov.b32 t, %r1; }
    mma.sync.aligned.kind::mxf8f6f4.block_scale {%r1, %r2}, {%r1}, [%r3+-16];
$L__END:
    ret;
}
.visible .entry second() { ret; }
"""
)


def test_an_entry_is_read_whole():
    module = parse(TEXT)
    first = module.entries["first"]
    assert (module.target, list(module.entries), entry_names(TEXT)) == ("sm_90a", ["first", "second"], ["first", "second"])
    assert first.parameter_offsets() == ({"pointer": 0, "pair": 8, "count": 20}, 24)
    assert first.max_threads == 128
    assert [variable.size for variable in module.variables] == [0, 12]
    assert module.variables[1].initial.hex() == "0000803f" + "00002040" + "00000000"
    assert [instruction.opcode for instruction in first.instructions] == ["mov", "bra", "mov", "mov", "mov", "mma", "ret"]
    assert first.instructions[1].predicate == ("%p1", True)
    assert first.instructions[5].operands == ("{%r1, %r2}", "{%r1}", "[%r3+-16]")
    assert first.instructions[5].modifiers == ("sync", "aligned", "kind::mxf8f6f4", "block_scale")
    assert TEXT.splitlines()[first.instructions[6].line - 1].strip() == "ret;"
    assert first.labels == {"$L__END": 6}


def test_names_of_a_scope_are_its_own():
    moves = parse(TEXT).entries["first"].instructions[2:5]
    (outer,), inner = {move.operands[0] for move in (moves[0],)}, moves[1].operands[0]
    assert outer != "%r1"
    assert moves[1].operands[1] == moves[2].operands[1] == outer
    assert inner != moves[2].operands[0]


def test_labels_and_guards_of_a_scope_are_its_own():
    scope = "{ .reg .pred p; AGAIN: setp.ne.u32 p, 1, 2; @!p bra.uni DONE; @p bra AGAIN; DONE: }"
    kernel = parse(f"{HEAD}.visible .entry k() {{ .reg .pred p; {scope} {scope} AGAIN: bra AGAIN; }}").entries["k"]
    targets = [kernel.labels[one.operands[0]] for one in kernel.instructions if one.opcode == "bra"]
    assert targets == [3, 0, 6, 3, 6]
    first, second = (kernel.instructions[index].predicate for index in (1, 4))
    assert first[0] != second[0] and first[1] and second[1]


def test_cluster_directives():
    text = f"{HEAD}.visible .entry k()\n.explicitcluster\n.reqnctapercluster 2, 3\n{{ ret; }}"
    assert parse(text).entries["k"].cluster == (2, 3, 1)
    assert parse(TEXT).entries["first"].cluster == (1, 1, 1)


def test_one_entry_alone():
    assert list(parse(TEXT, only="second").entries) == ["second"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "PTX text with a .target needed"),
        (HEAD + ".func helper() { ret; }", "PTX line 4: a function that the compiler did not inline"),
        (HEAD + ".global .weird x;", "PTX line 4: a declaration needed, got '.global .weird x'"),
    ],
)
def test_what_is_not_known_is_named(text, message):
    with pytest.raises(UnsupportedPtx) as error:
        parse(text)
    assert str(error.value) == message


def blocks_of(body):
    """The first opcode's operand of each block, in the order in which blocks run."""
    text = f"{HEAD}.visible .entry k() {{ .reg .b32 x; .reg .pred p; {body} }}"
    return [block.instructions[0].operands[1] if block.instructions else "" for block in basic_blocks(parse(text).entries["k"])]


def test_a_loop_stands_before_what_follows_it_whatever_the_text_order():
    order = blocks_of(
        "mov.b32 x, 0; bra HEAD; AFTER: mov.b32 x, 3; ret; HEAD: mov.b32 x, 1; @p bra AFTER; mov.b32 x, 2; bra HEAD;"
    )
    assert order == ["0", "1", "2", "3", ""]


def test_inner_loops_stay_in_one_piece():
    body = (
        """mov.b32 x, 0; OUTER: mov.b32 x, 1; INNER: mov.b32 x, 2; @p bra INNER; mov.b32 x, 3; @p bra OUTER; mov.b32 x, 4; ret;"""
    )
    # The empty blocks are latches: where threads wait before they go round again.
    assert blocks_of(body) == ["0", "1", "2", "", "3", "", "4", ""]


def test_blocks_that_cannot_be_reached_are_left_out():
    assert blocks_of("mov.b32 x, 0; ret; mov.b32 x, 1; ret;") == ["0", ""]
