// The operands of a convolution of channels-last pixels, passed to its kernel by value.
#pragma once

#include "gemm_arguments.h"

namespace halfbyte {

struct ConvGeometry {
    int height, width, out_height, out_width;
    int kernel_height, kernel_width, stride_height, stride_width;
    int padding_height, padding_width, dilation_height, dilation_width;
    int row_step;     // in pixels, from the last tap of a kernel row to the first of the next
    int pixel_bytes;  // of the codes of one pixel: the K of one tap
};

// qx and ascales belong to the padded_m input pixels, m and what is added to the output pixels. K is (kernel row, column, channel).
struct ConvArguments : GemmArguments {
    ConvGeometry geometry;
};

}  // namespace halfbyte
