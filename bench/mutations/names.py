"""Names that are easily taken for one another, and types and instructions that stand beside the right ones."""

from __future__ import annotations

PAIRS = [
    ("row_in_group", "quad"),
    ("warp_row", "warp_column"),
    ("block_row", "block_column"),
    ("row", "column"),
    ("row_scale", "column_scale"),
    ("m", "n"),
    ("m", "padded_m"),
    ("ascales", "wscales"),
    ("qx", "qweight"),
    ("low_rank_act", "proj_up"),
    ("row_bytes", "rank_bytes"),
    ("row_bytes", "segment_bytes"),
    ("kBlockM", "kBlockN"),
    ("kWarpM", "kWarpN"),
    ("kTilesM", "kTilesN"),
    ("kPassesA", "kPassesB"),
    ("kActChunks", "kWeightChunks"),
    ("kWarpsM", "kWarpsN"),
    ("i", "j"),
    ("values", "gates"),
    ("reading", "writing"),
    ("lane", "warp"),
    ("code_steps", "steps"),
    ("pairs", "count"),
    ("gate", "residual"),
    ("act", "weight"),
    ("staged_row", "row"),
    ("column_in_warp", "product_column"),
    ("column", "product_column"),
    ("kValueFirst", "kGateFirst"),
]
ALIKE: dict[str, list[str]] = {}
for _first, _second in PAIRS:
    ALIKE.setdefault(_first, []).append(_second)
    ALIKE.setdefault(_second, []).append(_first)

OTHER_INSTRUCTION = {
    "mma_s4": ["mma_u4s4"],
    "mma_u4s4": ["mma_s4"],
    "ldmatrix_x4": ["ldmatrix_x4_trans"],
    "ldmatrix_x4_trans": ["ldmatrix_x4"],
    "shuffle_xor": ["shuffle"],
}

# Other<T> is the other of the two 16-bit floats (prelude.h).
OTHER_TYPE = {
    "T": ["Other<T>"],
    "Half": ["Bfloat"],
    "Bfloat": ["Half"],
    "int8_t": ["uint8_t"],
    "uint8_t": ["int8_t", "uint16_t"],
    "uint16_t": ["uint8_t"],
    "uint32_t": ["uint16_t"],
}
