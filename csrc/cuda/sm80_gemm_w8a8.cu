// INT8 x INT8 on the tensor cores of sm_80 and later, and E4M3 x E4M3 on those of sm_89 and later.
#include "eight_bit_math.h"
#include "gemm_host.h"

namespace halfbyte {
namespace w8a8 {

using LargeTile = GemmTile<256, 128, 4, 2, 4>;
using SmallTile = GemmTile<64, 64, 2, 2, 4>;
// Segments keep a second accumulator in registers.
using SegmentTile = GemmTile<128, 128, 4, 2, 4>;
// Wide enough for one 8-bit scale of the next layer over 256 of its columns.
using NextLayerTile = GemmTile<128, 256, 2, 4, 4>;
constexpr int kFewRows = 128;

template <class T, class Product>
void launch_tile(const GemmArguments& arguments, Stream stream) {
    const bool segmented = arguments.segment_bytes < arguments.row_bytes;
    if (arguments.epilogue.next.qx && !segmented) {
        launch_gemm<EightBitMath<NextLayerTile, T, Product, false, TokenRows>>("gemm_w8a8", arguments, stream);
    } else if (segmented) {
        launch_gemm<EightBitMath<SegmentTile, T, Product, true, TokenRows>>("gemm_w8a8", arguments, stream);
    } else if (arguments.m <= kFewRows) {
        launch_gemm<EightBitMath<SmallTile, T, Product, false, TokenRows>>("gemm_w8a8", arguments, stream);
    } else {
        launch_gemm<EightBitMath<LargeTile, T, Product, false, TokenRows>>("gemm_w8a8", arguments, stream);
    }
}

template <class T>
void launch_product(const GemmArguments& arguments, bool e4m3, Stream stream) {
    if (e4m3) {
        launch_tile<T, E4m3Product>(arguments, stream);
    } else {
        launch_tile<T, Int8Product>(arguments, stream);
    }
}

}  // namespace w8a8

TileChoice choose_gemm_w8a8_tile(int m, int n, bool segmented, bool quantized) {
    using namespace w8a8;
    if (segmented) return tile_choice_of<EightBitMath<SegmentTile, Half, Int8Product, true, TokenRows>>(m, n, quantized);
    if (quantized) return tile_choice_of<EightBitMath<NextLayerTile, Half, Int8Product, false, TokenRows>>(m, n, quantized);
    return m <= kFewRows ? tile_choice_of<EightBitMath<SmallTile, Half, Int8Product, false, TokenRows>>(m, n, quantized)
                         : tile_choice_of<EightBitMath<LargeTile, Half, Int8Product, false, TokenRows>>(m, n, quantized);
}

void gemm_w8a8(const GemmArguments& arguments, bool e4m3, Dtype dtype, Stream stream) {
    check_gemm(arguments, dtype);
    expect_positive("columns of a segment", arguments.segment_bytes);
    expect_multiple("K", arguments.row_bytes, arguments.segment_bytes);
    // A step of the pipeline must not straddle two segments.
    if (arguments.segment_bytes < arguments.row_bytes) expect_multiple("columns of a segment", arguments.segment_bytes, kStepBytes);
    if (dtype == Dtype::kHalf) {
        w8a8::launch_product<Half>(arguments, e4m3, stream);
    } else {
        w8a8::launch_product<Bfloat>(arguments, e4m3, stream);
    }
}

}  // namespace halfbyte
