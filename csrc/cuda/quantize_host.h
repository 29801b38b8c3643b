// What the host code of the quantize kernels shares: checks, and the kernel built for a tile.
#pragma once

#include <type_traits>

#include "check.h"
#include "ptx.h"
#include "quantize.h"

namespace halfbyte {

inline void check_quantize(const QuantizeArguments& arguments, Dtype dtype) {
    expect(dtype != Dtype::kFloat, "x: float16 or bfloat16 needed, got float32");
    expect_positive("M", arguments.rows);
    expect_positive("K", arguments.columns);
    expect_positive("segments", arguments.segments);
    expect_multiple("M of ascales", arguments.padded_rows, 8);
    expect_multiple("K", arguments.columns, arguments.format <= ActFormat::kUint4 ? 64 : 16);
    expect_multiple("K", arguments.columns, arguments.segments);
    expect_multiple("columns of a segment", arguments.columns / arguments.segments, 16);
    expect_multiple("R", arguments.rank, 4);
    expect_at_most("R", arguments.rank, 128);
    const bool ranked = arguments.rank > 0;
    expect_aligned(16, {{"x", arguments.x},
                        {"smooth", arguments.smooth, true},
                        {"proj_down", arguments.proj_down, !ranked},
                        {"qx", arguments.qx},
                        {"ascales", arguments.ascales},
                        {"low_rank_act", arguments.low_rank_act, !ranked}});
}

inline QuantizeSizes quantize_sizes(const QuantizeArguments& arguments, bool row_statistics) {
    return {arguments.rows,     arguments.columns, arguments.rank, arguments.segments, arguments.format < ActFormat::kInt8,
            row_statistics};
}

template <class T>
struct TypeTag {
    using Type = T;
};

// Calls act(TypeTag<T>, row tiles) with what a kernel is instantiated for.
template <class Act>
void with_tile(const QuantizeTile& tile, Dtype dtype, Act act) {
    auto with_type = [&](auto type) {
        if (tile.rows == 32)
            act(type, std::integral_constant<int, 2>());
        else
            act(type, std::integral_constant<int, 1>());
    };
    if (dtype == Dtype::kHalf)
        with_type(TypeTag<Half>());
    else
        with_type(TypeTag<Bfloat>());
}

template <class Arguments>
void launch_rows(void (*kernel)(Arguments), const char* name, const QuantizeTile& tile, Stream stream,
                 const Arguments& arguments) {
    launch(kernel, name, {unsigned(tile.blocks), 1, 1}, 32 * tile.warps, size_t(tile.shared_bytes), stream, arguments);
}

}  // namespace halfbyte
