// Host entry points of the tiled matrix products; each throws std::invalid_argument for operands its kernel cannot take.
#pragma once

#include <string>

#include "gemm_arguments.h"
#include "launch.h"

namespace halfbyte {

// How a product is cut into blocks: a pure function of its sizes, printable.
struct TileChoice {
    int block_m, block_n, threads, stages, blocks;
    size_t shared_bytes;

    std::string describe() const {
        return std::to_string(block_m) + "x" + std::to_string(block_n) + " tiles, " + std::to_string(threads) + " threads, " +
               std::to_string(stages) + " stages, " + std::to_string(shared_bytes) + " bytes shared, " + std::to_string(blocks) +
               " blocks";
    }
};

// quantized: for the next layer, in the epilogue. dtype: of scales, low-rank operands, bias, gate and residual.
TileChoice choose_gemm_w4a4_tile(int m, int n, bool quantized);
void gemm_w4a4(const GemmArguments& arguments, bool act_unsigned, Dtype dtype, Stream stream);

TileChoice choose_gemm_w8a8_tile(int m, int n, bool segmented, bool quantized);
void gemm_w8a8(const GemmArguments& arguments, bool e4m3, Dtype dtype, Stream stream);

// As gemm_w8a8, on sm_90 alone. next_columns: of the product, that share one scale of the next layer, or 0.
TileChoice choose_sm90_gemm_w8a8_tile(int m, int n, bool e4m3, bool segmented, int next_columns, int multiprocessors);
void sm90_gemm_w8a8(const GemmArguments& arguments, bool e4m3, Dtype dtype, Stream stream);

TileChoice choose_gemm_nvfp4_tile(int m, int n, bool quantized);
void gemm_nvfp4(const GemmArguments& arguments, Dtype dtype, Stream stream);

}  // namespace halfbyte
