"""Reading what the tools print, on excerpts of it."""

import json

from halfbyte.testing.sass import disassemble

READELF = """
   Num:    Value          Size Type    Bind   Vis      Ndx Name
     3: 0000000000000000     0 SECTION LOCAL  DEFAULT   13 .text._Z1kv
     4: 000000000001e2b0  1872 FUNC    WEAK   DEFAULT   13 $__internal_0_$slowpath
     5: 0000000000000020    64 FUNC    WEAK   DEFAULT   14 $__internal_1_$slowpath
     6: 0000000000000000 0x1ea00 FUNC    GLOBAL DEFAULT [<other>: 10]    13 _Z1kv
"""
LISTING = """
	.section	.text._Z1j,"ax",@progbits
.L_x_0:
        /*0000*/                   BRA `(.L_x_0) ;
	.section	.text._Z1kv,"ax",@progbits
_Z1kv:
.L_x_5:
        /*0000*/                   MOV R1, RZ ;
        /*0010*/                   BRX R62 -0x20   (*"BRANCH_TARGETS .L_x_5,.L_x_7,.L_x_6"*);
.L_x_6:
.L_x_7:
        /*0020*/                   EXIT ;
"""
RESOURCES = """
Resource usage:
 Common:
  GLOBAL:0
 Function _Z1kv:
  REG:255 STACK:64 SHARED:1024 LOCAL:8 CONSTANT[0]:480 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
INSTRUCTIONS = [
    {"opcode": "MOV", "operands": "R1,RZ"},
    {"predicate": "@!P0", "opcode": "BRA", "operands": "0x20"},
    {"opcode": "EXIT"},
]
SASS = [{}, [{"function-name": "_Z1kv", "sass-instructions": INSTRUCTIONS}]]


def test_kernels(monkeypatch, tmp_path):
    printed = {"readelf": READELF, "cuobjdump": RESOURCES, "c++filt": "k()\n"}
    printed |= {"nvdisasm -json": json.dumps(SASS), "nvdisasm -c": LISTING}
    monkeypatch.setattr(disassemble, "run", lambda name, *words: printed.get(name) or printed[f"{name} {words[0]}"])
    (kernel,) = disassemble.kernels(tmp_path)
    assert (kernel.name, kernel.registers, kernel.stack, kernel.shared, kernel.local) == ("k()", 255, 64, 1024, 8)
    assert kernel.subroutines == {"$__internal_0_$slowpath": (0x1E2B0, 0x1E2B0 + 1872)}, "of this kernel's own section only"
    assert kernel.jump_tables == {16: {0, 32}}
    move, branch, exit_ = kernel.instructions
    assert (move.offset, branch.offset, exit_.offset) == (0, 16, 32)
    assert (move.target, branch.target, exit_.target) == (None, 0x20, None)
    assert (branch.base, branch.predicate) == ("BRA", "@!P0")
