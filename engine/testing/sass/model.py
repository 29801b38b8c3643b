"""A model of which limits a loop: issuing its instructions or its matrix products. Modelled, never measured."""

from __future__ import annotations

import re
from collections import Counter

from .opcodes import multiply_adds

SCHEDULERS = 4
# Multiply-adds per clock and SM, from the vendors' dense peaks; fp8 and 16-bit with fp32 accumulation.
RATES = {
    "80": {"int4": 4096, "int8": 2048, "16-bit": 1024},
    "86": {"int4": 2048, "int8": 1024, "16-bit": 256},
    "89": {"int4": 2048, "int8": 1024, "16-bit": 256, "fp8": 512},
    "90a": {"int8": 4096, "16-bit": 2048, "fp8": 4096},
    "120f": {"int8": 1024, "16-bit": 256, "fp8": 512, "mxfp8": 1024, "nvfp4": 2048},
}
TYPES = {
    "int4": r"IMMA\..*[SU]4",
    "int8": r"IG?MMA\..*[SU]8",
    "16-bit": r"HG?MMA",
    "mxfp8": r"QMMA\.SF",
    "fp8": r"QG?MMA",
    "nvfp4": r"OMMA\.SF",
}


def number_format(opcode: str) -> str | None:
    return next((name for name, pattern in TYPES.items() if re.match(pattern, opcode)), None)


def issue_over_tensor(instructions: int, matrix: Counter[str], arch: str) -> float | None:
    """Clocks to issue a warp's instructions over clocks of its matrix products, on an SM whose schedulers share warps evenly.

    matrix: opcode -> count. Above 1 the tensor cores wait and 1 / ratio is the highest share of their peak; nothing here knows of
    latency, memory or power. None where a rate is not known.
    """
    rates = RATES.get(arch, {})
    formats = {opcode: number_format(opcode) for opcode in matrix}
    if not matrix or not set(formats.values()) <= rates.keys():
        return None
    tensor = sum(count * multiply_adds(opcode) / rates[formats[opcode]] for opcode, count in matrix.items())
    return instructions / SCHEDULERS / tensor
