"""What an opcode does: its class, and the shape of a matrix instruction."""

from __future__ import annotations

import re

CLASSES = {
    "matrix": r"[HIQOD](G)?MMA",
    "local": r"LDL|STL",
    "async copy": r"LDGSTS|LDGDEPBAR|DEPBAR|ARRIVES|U?BLK\w+|UTMA\w+",
    "shared": r"LDS|STS|LDSM|STSM|ATOMS|SHFL",
    "global": r"LDG|STG|LD|ST|RED|REDG|ATOM|ATOMG|LDC|U?LDCU?",
    "conversion": r"I2F|F2I|I2FP|F2IP|F2F|F2FP|I2I|I2IP|FRND|UI2F\w*|UF2\w*",
    "float": r"[FHD](ADD|MUL|FMA|MNMX|SETP|SET|SEL|CHK)[23]?|MUFU",
    "control": r"BRA|BRXU?|JMP|CALL|RET|EXIT|BSSY|BSYNC|BREAK|BMOV|WARPSYNC\w*|BAR|U?SYNCS|MEMBAR|ERRBAR|FENCE|YIELD|NANOSLEEP"
    r"|WARPGROUP\w*",
    "integer": r"(U|V|UV)?(I?ADD3?|IMAD|IABS\w*|IMNMX\w*|ABSDIFF\w*|P?LOP3?|SHF|SHL|SHR|SGXT|BMSK|LEA|PRMT|SEL|MOV|ISETP|ISET"
    r"|POPC|FLO|BREV|P2R|R2P)|U?CS2R|R2UR|VOTE\w*|REDUX",
}  # fmt: skip
NEVER = {"@!PT", "@!UPT"}
PATTERNS = {name: re.compile(pattern) for name, pattern in CLASSES.items()}


def kind(base: str, predicate: str = "") -> str:
    """The class of an opcode without its modifiers: one of CLASSES, padding for what is issued to do nothing, or other."""
    if base == "NOP" or predicate in NEVER:
        return "padding"
    return next((name for name, pattern in PATTERNS.items() if pattern.fullmatch(base)), "other")


def matrix_shape(opcode: str) -> tuple[int, int, int]:
    """(M, N, K) that one warp's instruction multiplies; a warpgroup's is shared by four warps. Raises ValueError when unknown."""
    if match := re.search(r"\.(\d+)x(\d+)x(\d+)", opcode):
        m, n, k = map(int, match.groups())
        return m // 4, n, k
    if match := re.search(r"\.168(\d+)\b", opcode):
        return 16, 8, int(match.group(1))
    raise ValueError(f"{opcode}: a matrix opcode with its shape as .168K or .MxNxK is needed")


def multiply_adds(opcode: str) -> int:
    """Multiply-adds of one warp's instruction."""
    m, n, k = matrix_shape(opcode)
    return m * n * k
