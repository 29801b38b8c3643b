// Convolution, INT8 x INT8, on the tensor cores of sm_80 and later.
#include "conv2d_host.h"
#include "eight_bit_math.h"

namespace halfbyte {
namespace {

// Every tap reads another pixel, which has a scale of its own: segments, which keep a second accumulator in registers.
template <class Tile, class T>
using PixelMath = EightBitMath<Tile, T, Int8Product, true, PixelRows>;
using LargeTile = GemmTile<128, 128, 4, 2, 4>;
using SmallTile = GemmTile<64, 64, 2, 2, 4>;

}  // namespace

TileChoice choose_conv2d_w8a8_tile(int m, int n) { return choose_conv2d_tile<PixelMath, LargeTile, SmallTile>(m, n); }

void conv2d_w8a8(const ConvArguments& arguments, Dtype dtype, Stream stream) {
    check_conv2d(arguments, dtype, kStepBytes);
    launch_conv2d<PixelMath, LargeTile, SmallTile>("conv2d_w8a8", arguments, dtype, stream);
}

}  // namespace halfbyte
