// The operands of every tiled matrix product, passed to its kernel by value.
#pragma once

#include <cstdint>

#include "dtype.h"
#include "quantize_arguments.h"

namespace halfbyte {

// Values shared with engine/ops/native/operands.py.
enum class Activation : int { kNone, kGeluErf, kGeluTanh, kSilu };
enum class Glu : int { kNone, kValueFirst, kGateFirst };

// The next layer's activations, quantized where they are made. Pointers to the 16-bit dtype unless named otherwise.
struct NextLayerArguments {
    const void* smooth;     // [columns], optional
    const void* proj_down;  // [columns, rank], optional
    void* qx;               // null: the output is not quantized
    void* ascales;
    float* partials;     // [blocks of columns, M, rank]
    void* low_rank_act;  // [M, rank]
    int padded_rows, columns, rank;
    int scale_columns;  // that share one scale
    float shift;
    ActFormat format;
};

// What follows the product of one output tile. bias [N], gate [M / rows_per_gate, N] and residual [M, N] are 16-bit or null.
struct EpilogueArguments {
    const void* bias;
    const void* gate;
    const void* residual;
    void* out;  // [M, N], or [M, N / 2] with a gated linear unit
    int rows_per_gate;
    int out_stride;  // elements from one row of out to the next
    Dtype out_dtype;
    Activation activation;
    Glu glu;
    NextLayerArguments next;
};

// y [M, N] = codes [M, K] @ qweight [N, K]^T, scaled, + low_rank_act [M, R] @ proj_up [N, R]^T.
struct GemmArguments {
    const uint8_t* qx;
    const void* ascales;  // [G or S, padded_m]
    const uint8_t* qweight;
    const void* wscales;  // [G, N], or [N] with one scale per channel
    const float* wtscale;
    const uint8_t* low_rank_act;
    const uint8_t* proj_up;
    int m, padded_m, n;
    int row_bytes;       // of one row of codes, K / 2 or K
    int rank_bytes;      // of one row of the low-rank operands, 2 R
    int segment_bytes;   // of the codes that share one activation scale; row_bytes when it holds for a whole token
    EpilogueArguments epilogue;
};

}  // namespace halfbyte
