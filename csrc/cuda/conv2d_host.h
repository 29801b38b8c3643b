// What the host code of both convolutions shares: the checks of their operands, the choice of a tile, and the launch.
#pragma once

#include "conv2d.h"
#include "gemm_host.h"
#include "pixel_rows.h"

namespace halfbyte {

inline void check_conv2d(const ConvArguments& arguments, Dtype dtype, int part_bytes) {
    check_gemm(arguments, dtype);
    expect(!arguments.epilogue.next.qx, "next layer: no convolution quantizes its output, got one");
    const ConvGeometry& geometry = arguments.geometry;
    expect_positive("height", geometry.height);
    expect_positive("width", geometry.width);
    expect_positive("height of the output", geometry.out_height);
    expect_positive("width of the output", geometry.out_width);
    expect_positive("height of the kernel", geometry.kernel_height);
    expect_positive("width of the kernel", geometry.kernel_width);
    expect_at_most("taps of the kernel", int64_t(geometry.kernel_height) * geometry.kernel_width, kMostTaps);
    expect_multiple("M", arguments.m, int64_t(geometry.out_height) * geometry.out_width);
    expect(arguments.row_bytes == int64_t(geometry.kernel_height) * geometry.kernel_width * geometry.pixel_bytes,
           "qweight: a pixel's bytes for every tap needed");
    expect_positive("bytes of a segment", arguments.segment_bytes);
    expect_multiple("bytes of a segment", arguments.segment_bytes, part_bytes);
    expect_multiple("bytes of a pixel", geometry.pixel_bytes, arguments.segment_bytes);
}

// Images of few pixels have many channels: small tiles spread them over the GPU.
constexpr int kFewRows = 512;

template <template <class, class> class Math, class LargeTile, class SmallTile>
TileChoice choose_conv2d_tile(int m, int n) {
    return m <= kFewRows ? tile_choice_of<Math<SmallTile, Half>>(m, n, false) : tile_choice_of<Math<LargeTile, Half>>(m, n, false);
}

template <template <class, class> class Math, class LargeTile, class SmallTile, class T>
void launch_conv2d(const char* name, const ConvArguments& arguments, Stream stream) {
    if (arguments.m <= kFewRows) {
        launch_gemm<Math<SmallTile, T>>(name, arguments, stream);
    } else {
        launch_gemm<Math<LargeTile, T>>(name, arguments, stream);
    }
}

template <template <class, class> class Math, class LargeTile, class SmallTile>
void launch_conv2d(const char* name, const ConvArguments& arguments, Dtype dtype, Stream stream) {
    if (dtype == Dtype::kHalf) {
        launch_conv2d<Math, LargeTile, SmallTile, Half>(name, arguments, stream);
    } else {
        launch_conv2d<Math, LargeTile, SmallTile, Bfloat>(name, arguments, stream);
    }
}

}  // namespace halfbyte
