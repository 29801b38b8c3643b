// Host entry points of the convolutions; each throws std::invalid_argument for operands its kernel cannot take.
#pragma once

#include "conv_arguments.h"
#include "gemm.h"

namespace halfbyte {

TileChoice choose_conv2d_w4a4_tile(int m, int n);
void conv2d_w4a4(const ConvArguments& arguments, Dtype dtype, Stream stream);

TileChoice choose_conv2d_w8a8_tile(int m, int n);
void conv2d_w8a8(const ConvArguments& arguments, Dtype dtype, Stream stream);

}  // namespace halfbyte
