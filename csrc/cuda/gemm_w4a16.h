// Host entry point of gemm_w4a16.
#pragma once

#include <string>

#include "launch.h"
#include "w4a16_arguments.h"

namespace halfbyte {

// How a product is cut into blocks: a pure function of its sizes.
struct W4A16Choice {
    bool gemv;
    int row_tiles;     // of 16 weight rows in a block of the matrix-vector kernel
    int column_tiles;  // of the matrix-vector kernel: room for 4 rows of x each
    Grid grid;

    std::string describe() const;
};

W4A16Choice choose_w4a16(int m, int n, int parts);

// x [M, K], smooth [K] or none, parts: uint16 [2 M, K] when there is a smooth, else unused; x and parts of the arguments are
// filled in here. Throws std::invalid_argument for operands the kernels cannot take.
void gemm_w4a16(Floats x, Floats smooth, uint16_t* parts, WeightFormat format, W4A16Arguments arguments, Stream stream);

}  // namespace halfbyte
