// Host entry points of qk_norm_rope and joint_qkv_norm_rope.
#pragma once

#include <array>
#include <string>

#include "floats.h"
#include "launch.h"

namespace halfbyte {

// Queries, keys or values of one stream: x [B, tokens, heads, D] with heads side by side in a row, weight [D] or [heads * D] or
// none. They become the tokens from first_token on of y [B, T, heads, D], which has no gaps.
struct RopeSide {
    Floats x, weight;
    void* y;
    int64_t batch_stride, row_stride;  // of x, in elements
    int heads, tokens, first_token;
    bool norm_all_heads, rotated;
};

constexpr int kJointSides = 6;

struct RopeArguments {
    Floats cos, sin;    // [T, D / 2]
    int64_t batch;      // B
    int tokens, width;  // T, D
    float eps;
    bool half;  // pairs (i, i + D / 2) instead of (2i, 2i + 1)
};

// Which kernel a side runs on: a pure function of its sizes.
struct RopeChoice {
    bool one_head_per_lane_group;  // else one block per norm
    int lanes;                     // of a head, or threads of a block

    std::string describe() const;
};

RopeChoice choose_qk_norm_rope(int width, int norm_width);

// Both throw std::invalid_argument for operands the kernels cannot take.
void qk_norm_rope(const RopeSide& q, const RopeSide& k, const RopeArguments& arguments, Stream stream);

// q, k and v of the first stream, then of the second; all norms are of one head.
void joint_qkv_norm_rope(const std::array<RopeSide, kJointSides>& sides, const RopeArguments& arguments, Stream stream);

}  // namespace halfbyte
