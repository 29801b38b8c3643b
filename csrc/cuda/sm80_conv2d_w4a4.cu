// Convolution, INT4 x INT4 in groups of 64, on the tensor cores of sm_80, sm_86 and sm_89.
#include "conv2d_host.h"
#include "int4_math.h"
#include "pixel_scales.h"

namespace halfbyte {
namespace {

template <class Tile, class T>
using PixelMath = Int4Math<Tile, T, false, PixelRows>;
using LargeTile = GemmTile<256, 128, 4, 2, 3>;
using SmallTile = GemmTile<64, 64, 2, 2, 4>;

}  // namespace

TileChoice choose_conv2d_w4a4_tile(int m, int n) { return choose_conv2d_tile<PixelMath, LargeTile, SmallTile>(m, n); }

void conv2d_w4a4(const ConvArguments& arguments, Dtype dtype, Stream stream) {
    check_conv2d(arguments, dtype, kGroupBytes);
    launch_conv2d<PixelMath, LargeTile, SmallTile>("conv2d_w4a4", arguments, dtype, stream);
}

}  // namespace halfbyte
