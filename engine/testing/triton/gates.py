"""What compiled Triton kernels are held to: no local memory, a block's shared memory, and the tensor cores they are meant for."""

from __future__ import annotations

from dataclasses import dataclass

from .check import Compiled

# Bytes that a block may have, opted in.
SHARED_BYTES = {80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10}


@dataclass(frozen=True)
class OpcodeGate:
    """Calls of `op` whose ids begin with `call`: one of the kernels has an instruction that begins with `opcode`."""

    op: str
    call: str
    capabilities: tuple[int, ...]
    opcode: str


OPCODE_GATES = (
    OpcodeGate("gemm_w8a8", "int8", (90,), "IGMMA"),
    OpcodeGate("gemm_w8a8", "fp8", (90,), "QGMMA"),
    OpcodeGate("gemm_w8a8", "int8", (80, 86, 89, 120), "IMMA"),
    OpcodeGate("gemm_w8a8", "fp8", (89, 120), "QMMA"),
    OpcodeGate("gemm_w4a16", "", (90,), "HGMMA"),
    OpcodeGate("conv2d", "int8", (90,), "IGMMA"),
    OpcodeGate("conv2d", "fp8", (90,), "QGMMA"),
    OpcodeGate("conv2d", "int4", (80, 86, 89, 120), "IMMA"),
)


def failures(kernels: list[Compiled]) -> list[str]:
    """One sentence for each gate that the kernels of one op for one GPU break."""
    found = []
    for kernel in kernels:
        name = f"{kernel.op} {kernel.call}, {kernel.kernel} for sm_{kernel.capability}"
        if local := kernel.resources[1]:
            found.append(f"{name}: no local memory is allowed, got {local} bytes of it")
        if kernel.shared > (most := SHARED_BYTES[kernel.capability]):
            found.append(f"{name}: at most {most} bytes of shared memory are allowed, got {kernel.shared}")
    for gate in OPCODE_GATES:
        for call in dict.fromkeys(kernel.call for kernel in kernels if gate.op == kernel.op and kernel.call.startswith(gate.call)):
            own = [kernel for kernel in kernels if kernel.call == call]
            if own[0].capability in gate.capabilities and not any(_has(kernel, gate.opcode) for kernel in own):
                found.append(f"{gate.op} {call} for sm_{own[0].capability}: {gate.opcode} is needed, got none")
    return found


def _has(kernel: Compiled, opcode: str) -> bool:
    return any(each.startswith(opcode) for each in kernel.report.matrix)
