// INT4 x INT4 in groups of 64 on the tensor cores of sm_80, sm_86 and sm_89.
#include "gemm_host.h"
#include "int4_math.h"

namespace halfbyte {
namespace w4a4 {

using LargeTile = GemmTile<256, 128, 4, 2, 3>;
// Text streams and guidance batches have few tokens: small tiles spread them over the GPU.
using SmallTile = GemmTile<64, 64, 2, 2, 4>;
// An INT4 group of the next layer does not fit a small tile with a gated linear unit.
inline bool few_rows(int m, bool quantized) { return m <= 128 && !quantized; }

template <class Tile, class T>
void launch_sign(const GemmArguments& arguments, bool act_unsigned, Stream stream) {
    if (act_unsigned) {
        launch_gemm<Int4Math<Tile, T, true, TokenRows>>("gemm_w4a4", arguments, stream);
    } else {
        launch_gemm<Int4Math<Tile, T, false, TokenRows>>("gemm_w4a4", arguments, stream);
    }
}

template <class T>
void launch_tile(const GemmArguments& arguments, bool act_unsigned, Stream stream) {
    if (few_rows(arguments.m, arguments.epilogue.next.qx)) {
        launch_sign<SmallTile, T>(arguments, act_unsigned, stream);
    } else {
        launch_sign<LargeTile, T>(arguments, act_unsigned, stream);
    }
}

}  // namespace w4a4

TileChoice choose_gemm_w4a4_tile(int m, int n, bool quantized) {
    return w4a4::few_rows(m, quantized) ? tile_choice_of<Int4Math<w4a4::SmallTile, Half, false, TokenRows>>(m, n, quantized)
                               : tile_choice_of<Int4Math<w4a4::LargeTile, Half, false, TokenRows>>(m, n, quantized);
}

void gemm_w4a4(const GemmArguments& arguments, bool act_unsigned, Dtype dtype, Stream stream) {
    check_gemm(arguments, dtype);
    expect_multiple("bytes of a row of codes", arguments.row_bytes, 32);
    if (dtype == Dtype::kHalf) {
        w4a4::launch_tile<Half>(arguments, act_unsigned, stream);
    } else {
        w4a4::launch_tile<Bfloat>(arguments, act_unsigned, stream);
    }
}

}  // namespace halfbyte
