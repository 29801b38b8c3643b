// Adding the low-rank partial sums of a row's blocks, in the order of the blocks.
#pragma once

#include "dtype.h"
#include "launch.h"

namespace halfbyte {

struct PartialsArguments {
    const float* partials;  // [blocks, count]
    void* out;              // [count], of dtype float16 or bfloat16
    int blocks, count;      // count: a multiple of 4
    Dtype dtype;
};

void sum_partials(const PartialsArguments& arguments, Stream stream);

}  // namespace halfbyte
