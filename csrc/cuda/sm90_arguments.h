// The operands of a product on warpgroups: those of every product, and how the copy engine finds their rows.
#pragma once

#include "gemm_arguments.h"
#include "tensor_map.h"

namespace halfbyte {

struct WarpgroupArguments {
    TensorMap qx, qweight;
    TensorMap low_rank_act, proj_up;  // zero without ranks
    TensorMap out;                    // zero unless boxes leave
    bool boxes_leave;                 // the copy engine writes the output
    GemmArguments gemm;
};

}  // namespace halfbyte
