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
    ("kGemmBlockN", "kGemmBlockC"),
    ("kSumStride", "kLowRankStride"),
    ("low", "high"),
    ("even", "odd"),
    ("first", "second"),
    ("first", "last"),
    ("cos", "sin"),
    ("mean", "factor"),
    ("means", "factors"),
    ("group", "quad"),
    ("g", "q"),
    ("warp_n", "warp_c"),
    ("rank", "first_rank"),
    ("slot", "step"),
    ("unit", "step"),
    ("channel", "pixel"),
    ("difference", "size"),
    ("word", "half"),
]
# Only as members, where the same names stand for other things elsewhere.
MEMBER_PAIRS = [
    ("rows", "columns"),
    ("rows", "padded_rows"),
    ("rank", "columns"),
    ("pixels", "channels"),
    ("batch", "pixels"),
    ("x", "y"),
    ("mod_scale", "mod_shift"),
    ("rows_per_scale", "rows_per_shift"),
    ("weight", "bias"),
    ("hidden_states", "delta"),
    ("value", "base"),
    ("scale", "shift"),
    ("units", "warps"),
    ("tokens", "width"),
    ("k", "n"),
]


def both_ways(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    alike: dict[str, list[str]] = {}
    for first, second in pairs:
        alike.setdefault(first, []).append(second)
        alike.setdefault(second, []).append(first)
    return alike


ALIKE, MEMBERS_ALIKE = both_ways(PAIRS), both_ways(MEMBER_PAIRS)

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
