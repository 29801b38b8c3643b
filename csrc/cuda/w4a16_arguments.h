// The operands of gemm_w4a16, passed to its kernels by value.
#pragma once

#include <cstdint>

#include "floats.h"

namespace halfbyte {

enum class WeightFormat : int { kInt4, kNvfp4 };

constexpr int kInt4Group = 64;
constexpr int kNvfp4Group = 16;

// y [M, N] = x [M, K] @ weight [N, K]^T + low_rank_act [M, R] @ proj_up [N, R]^T + bias [N].
struct W4A16Arguments {
    // Rows of x in 16 bits: parts = 1, or 2 where row 2m is x[m] rounded to bfloat16 and row 2m + 1 what that leaves.
    const uint16_t* x;
    const uint8_t* qweight;  // [N, K / 2]
    Floats wscales;          // 16-bit [K / 64, N] for int4; E4M3 [K / 16, N] for nvfp4, whatever the dtype says
    const float* wtscale;    // [1], nvfp4 only
    Floats low_rank_act, proj_up, bias;
    void* out;  // [M, N]
    Dtype out_dtype;
    int m, n, k, rank, parts;
};

}  // namespace halfbyte
