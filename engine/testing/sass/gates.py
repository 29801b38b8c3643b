"""The table of static gates: what the machine code of each kernel must show.

Every kernel, listed or not, must keep off local memory.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """source: stem of the file in csrc/cuda; kernel: regular expression found in the demangled names it is about.

    opcode: how the matrix opcode of the steady-state loop begins; max_per_entry: instructions of that loop for each accumulator
    entry that it updates in one step of K; inner_iterations: how often the innermost loop runs in each iteration of the one
    around it, when that is the steady-state loop; max_depth: loops nested around and including it.
    """

    source: str
    kernel: str
    archs: tuple[str, ...]
    opcode: str = ""
    max_registers: int = 255
    max_per_entry: float | None = None
    inner_iterations: int = 1
    max_depth: int = 1


MMA_INT4 = ("80", "86", "89")
MMA_INT8 = (*MMA_INT4, "90a", "100a", "120f")

GATES = (
    # Two groups a step, one after the other, in 64x64 warp tiles: both at once need more registers than there are.
    Gate("sm80_gemm_w4a4", "GemmTile<256, 128,", MMA_INT4, "IMMA.16864", max_per_entry=4.2, inner_iterations=2),
    # 128 threads a block: 168 registers let three blocks share an SM, 128 let four.
    Gate("sm80_gemm_w4a4", "GemmTile<64, 64,", MMA_INT4, "IMMA.16864", max_per_entry=5.4, max_registers=168),
    Gate("sm80_gemm_w8a8", "GemmTile<256, 128,.*Int8", MMA_INT8[:-1], "IMMA.16832.S8", max_per_entry=0.7),
    Gate("sm80_gemm_w8a8", "GemmTile<256, 128,.*Int8", ("120f",), "IMMA.16832.S8", max_per_entry=0.9),
    Gate("sm80_gemm_w8a8", "GemmTile<64, 64,.*Int8", MMA_INT8, "IMMA.16832.S8", max_per_entry=1.65, max_registers=128),
    Gate("sm80_gemm_w8a8", "GemmTile<128, 128,.*Int8", MMA_INT8, "IMMA.16832.S8", max_per_entry=3.6),
    Gate("sm80_gemm_w8a8", "GemmTile<256, 128,.*E4m3", ("89",), "QMMA.16832.F32.E4M3", max_per_entry=0.95),
    Gate("sm80_gemm_w8a8", "GemmTile<256, 128,.*E4m3", ("120f",), "QMMA.SF.16832", max_per_entry=0.9),
    Gate("sm80_gemm_w8a8", "GemmTile<64, 64,.*E4m3", ("89",), "QMMA.16832.F32.E4M3", max_per_entry=1.9, max_registers=128),
    Gate("sm80_gemm_w8a8", "GemmTile<64, 64,.*E4m3", ("120f",), "QMMA.SF.16832", max_per_entry=1.65, max_registers=128),
    Gate("sm80_gemm_w8a8", "GemmTile<128, 128,.*E4m3", ("89",), "QMMA.16832.F32.E4M3", max_per_entry=3.0),
    Gate("sm80_gemm_w8a8", "GemmTile<128, 128,.*E4m3", ("120f",), "QMMA.SF.16832", max_per_entry=3.2),
    # The registers are those of the launch, before warpgroups hand them on. Around the counted loop are the tiles of a block and,
    # in the kernels whose first flag is set, the promotion of sums.
    *(
        Gate("sm90_gemm_w8a8", f"{kernel}, f", ("90a",), opcode, 168, max_per_entry=per_entry, max_depth=depth)
        for kernel, opcode, per_entry, depth in (
            ("Int8.*WarpgroupTile<256,.*false", "IGMMA.64x256x32.S8.S8", 0.13, 2),
            ("Int8.*WarpgroupTile<192,.*false", "IGMMA.64x192x32.S8.S8", 0.17, 2),
            ("Int8.*WarpgroupTile<128,.*false", "IGMMA.64x128x32.S8.S8", 0.25, 2),
            ("Int8.*WarpgroupTile<192,.*true", "IGMMA.64x192x32.S8.S8", 0.17, 3),
            ("Int8.*WarpgroupTile<128,.*true", "IGMMA.64x128x32.S8.S8", 0.25, 3),
            ("E4m3.*WarpgroupTile<192,.*true", "QGMMA.64x192x32.F32", 0.17, 3),
            ("E4m3.*WarpgroupTile<128,.*true", "QGMMA.64x128x32.F32", 0.25, 3),
        )
    ),
    # Those that also quantize their output keep fewer constants of the loop in registers.
    *(
        Gate("sm90_gemm_w8a8", f"{kernel}, t", ("90a",), opcode, 168, max_per_entry=per_entry, max_depth=depth)
        for kernel, opcode, per_entry, depth in (
            ("Int8.*WarpgroupTile<256,.*false", "IGMMA.64x256x32.S8.S8", 0.13, 2),
            ("Int8.*WarpgroupTile<128,.*true", "IGMMA.64x128x32.S8.S8", 0.3, 3),
            ("E4m3.*WarpgroupTile<128,.*true", "QGMMA.64x128x32.F32", 0.3, 3),
        )
    ),
    # Around the counted loop, over a warp's boxes, are the groups of rows. The loops of the codes have no such opcode.
    Gate("sm90_quantize_act", "quantize_act_kernel", ("90a",), "HMMA.16816", 128, max_per_entry=0.85, max_depth=2),
    Gate("sm120_gemm_nvfp4", "GemmTile<256, 128,", ("120f",), "OMMA.SF.16864", max_per_entry=1.1),
    Gate("sm120_gemm_nvfp4", "GemmTile<64, 64,", ("120f",), "OMMA.SF.16864", max_per_entry=2.35, max_registers=128),
    Gate("smxx_gemm_w4a16", "gemm_w4a16_kernel", MMA_INT8, "HMMA.16816", max_per_entry=3.7, max_registers=168),
    # Two blocks of 256 threads on a multiprocessor hide the latency of the weight's only read.
    Gate("smxx_gemm_w4a16", "gemv_w4a16_kernel<.*, [12]>", MMA_INT8, "HMMA.16816", max_registers=128),
    # Walking the taps and fetching scattered scales, on top of the product of tokens.
    Gate("sm80_conv2d_w4a4", "GemmTile<256, 128,", MMA_INT4, "IMMA.16864", max_per_entry=4.6, inner_iterations=2),
    Gate("sm80_conv2d_w4a4", "GemmTile<64, 64,", MMA_INT4, "IMMA.16864", max_per_entry=6.3, max_registers=168),
    # The loop's code counts the end of a segment, which runs once a tap.
    Gate("sm80_conv2d_w8a8", "GemmTile<128, 128,", MMA_INT8, "IMMA.16832.S8", max_per_entry=4.0),
    Gate("sm80_conv2d_w8a8", "GemmTile<64, 64,", MMA_INT8, "IMMA.16832.S8", max_per_entry=5.4, max_registers=168),
)
