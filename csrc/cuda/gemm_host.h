// What the host code of all tiled products shares: the checks of their operands, and the launch.
#pragma once

#include <type_traits>

#include "check.h"
#include "gemm.h"
#include "gemm_kernel.h"
#include "sum_partials.h"

namespace halfbyte {

inline void check_gemm(const GemmArguments& arguments, Dtype dtype) {
    const EpilogueArguments& epilogue = arguments.epilogue;
    expect(dtype != Dtype::kFloat, "dtype: float16 or bfloat16 operands needed, got float32");
    expect(epilogue.out_dtype == dtype || epilogue.out_dtype == Dtype::kFloat, "out: the operands' dtype or float32 needed");
    expect_positive("M", arguments.m);
    expect_positive("N", arguments.n);
    expect_positive("K", arguments.row_bytes);
    expect_multiple("N", arguments.n, epilogue.glu == Glu::kNone ? 8 : 16);
    expect_multiple("bytes of a row of codes", arguments.row_bytes, 16);
    expect_multiple("bytes of a row of ranks", arguments.rank_bytes, 16);
    const bool ranked = arguments.rank_bytes > 0;
    expect_aligned(16, {{"qx", arguments.qx},
                        {"ascales", arguments.ascales},
                        {"qweight", arguments.qweight},
                        {"wscales", arguments.wscales},
                        {"low_rank_act", arguments.low_rank_act, !ranked},
                        {"proj_up", arguments.proj_up, !ranked},
                        {"bias", epilogue.bias, true},
                        {"gate", epilogue.gate, true},
                        {"residual", epilogue.residual, true},
                        {"out", epilogue.out, epilogue.next.qx != nullptr}});
    expect(!epilogue.gate || epilogue.residual, "gate: a residual needed beside it, got none");
    expect(!epilogue.gate || arguments.m % epilogue.rows_per_gate == 0, "gate: its rows must divide M");
    if (epilogue.next.qx) return;
    expect_multiple("elements from row to row of out", epilogue.out_stride, 8);
    const int width = epilogue.glu == Glu::kNone ? arguments.n : arguments.n / 2;
    expect(epilogue.out_stride >= width, "elements from row to row of out: at least " + std::to_string(width) + " needed, got " +
                                             std::to_string(epilogue.out_stride));
}

inline void check_next_layer(const NextLayerArguments& next, int block_columns) {
    if (!next.qx) return;
    const bool eight_bits = next.format >= ActFormat::kInt8;
    expect_aligned(16, {{"smooth", next.smooth, true},
                        {"proj_down", next.proj_down, next.rank == 0},
                        {"qx", next.qx},
                        {"ascales", next.ascales},
                        {"partials", next.partials, next.rank == 0},
                        {"low_rank_act", next.low_rank_act, next.rank == 0}});
    expect_multiple("R of the next layer", next.rank, 4);
    expect_multiple("K of the next layer", next.columns, next.scale_columns);
    expect(!eight_bits || (next.scale_columns & (next.scale_columns - 1)) == 0,
           "segments: 16, 32, 64, 128 or 256 columns each needed, got " + std::to_string(next.scale_columns));
    expect_at_most("columns of a segment of the next layer", next.scale_columns, block_columns);
}

template <class Math>
TileChoice tile_choice_of(int m, int n, bool quantized) {
    using Tile = typename Math::Tile;
    const int blocks = ((m + Tile::kBlockM - 1) / Tile::kBlockM) * ((n + Tile::kBlockN - 1) / Tile::kBlockN);
    return {Tile::kBlockM, Tile::kBlockN, Tile::kThreads, Tile::kStages, blocks, shared_bytes<Math>(quantized)};
}

template <class Math>
void launch_gemm(const char* name, const typename Math::Arguments& arguments, Stream stream) {
    const NextLayerArguments& next = arguments.epilogue.next;
    const TileChoice choice = tile_choice_of<Math>(arguments.m, arguments.n, next.qx);
    check_next_layer(next, arguments.epilogue.glu == Glu::kNone ? choice.block_n : choice.block_n / 2);
    launch(gemm_kernel<Math>, name, {unsigned(choice.blocks), 1, 1}, choice.threads, choice.shared_bytes, stream, arguments);
    if (!next.qx || !next.rank) return;
    const int column_blocks = (arguments.n + choice.block_n - 1) / choice.block_n;
    const Dtype dtype = std::is_same_v<typename Math::Scalar, Half> ? Dtype::kHalf : Dtype::kBfloat;
    sum_partials({next.partials, next.low_rank_act, column_blocks, arguments.m * next.rank, dtype}, stream);
}

}  // namespace halfbyte
