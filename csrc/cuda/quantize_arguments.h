// What the quantize kernels are given. Pointers are to x's 16-bit dtype unless named otherwise; optional ones may be null.
#pragma once

#include "quantize_tile.h"

namespace halfbyte {

enum class ActFormat : int { kInt4, kUint4, kNvfp4, kNvfp4FourOverSix, kInt8, kFp8 };

struct QuantizeArguments {
    const void* x;          // [rows, columns]
    const void* smooth;     // [columns], optional
    const void* proj_down;  // [columns, rank], optional
    void* qx;               // uint8 [rows, columns or columns / 2]
    void* ascales;          // [groups or segments, padded rows]: x's dtype, e4m3 for nvfp4 or float for 8 bits
    void* low_rank_act;     // [rows, rank]
    int rows, padded_rows, columns, rank, segments;
    float shift;
    ActFormat format;
    QuantizeTile tile;
};

struct NormArguments {
    const void* weight;     // [columns], optional
    const void* bias;       // [columns], optional
    const void* mod_scale;  // [rows / rows_per_scale, columns], optional
    const void* mod_shift;  // [rows / rows_per_shift, columns], optional
    int rows_per_scale, rows_per_shift;
    float eps;
    bool centred;  // LayerNorm, else RMSNorm
};

struct GroupNormArguments {
    const void* weight;  // [channels], optional
    const void* bias;    // [channels], optional
    float* workspace;    // group_norm_workspace_floats() of them
    int batch, pixels, groups;
    float eps;
    bool silu;
};

}  // namespace halfbyte
