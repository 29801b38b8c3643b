// What the host code of all tiled products shares: the checks of their operands, and the launch.
#pragma once

#include "check.h"
#include "gemm.h"
#include "gemm_kernel.h"

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
                        {"out", epilogue.out}});
    expect(!epilogue.gate || epilogue.residual, "gate: a residual needed beside it, got none");
    expect(!epilogue.gate || arguments.m % epilogue.rows_per_gate == 0, "gate: its rows must divide M");
}

template <class Tile, size_t kSharedBytes>
TileChoice tile_choice(int m, int n) {
    const int blocks = ((m + Tile::kBlockM - 1) / Tile::kBlockM) * ((n + Tile::kBlockN - 1) / Tile::kBlockN);
    return {Tile::kBlockM, Tile::kBlockN, Tile::kThreads, Tile::kStages, blocks, kSharedBytes};
}

template <class Math>
TileChoice tile_choice_of(int m, int n) {
    return tile_choice<typename Math::Tile, shared_bytes<Math>()>(m, n);
}

template <class Math>
void launch_gemm(const char* name, const GemmArguments& arguments, Stream stream) {
    const TileChoice choice = tile_choice_of<Math>(arguments.m, arguments.n);
    launch(gemm_kernel<Math>, name, {unsigned(choice.blocks), 1, 1}, choice.threads, choice.shared_bytes, stream, arguments);
}

}  // namespace halfbyte
