// Host entry point of qk_norm_rope.
#pragma once

#include <string>

#include "floats.h"
#include "launch.h"

namespace halfbyte {

// One of q and k: x and y [B * T, heads, D] of one dtype, weight [D] or [heads * D] or none.
struct RopeSide {
    Floats x, weight;
    void* y;
    int heads;
    bool norm_all_heads;
};

struct RopeArguments {
    Floats cos, sin;    // [T, D / 2]
    int64_t rows;       // B * T
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

// Throws std::invalid_argument for operands the kernels cannot take.
void qk_norm_rope(const RopeSide& q, const RopeSide& k, const RopeArguments& arguments, Stream stream);

}  // namespace halfbyte
