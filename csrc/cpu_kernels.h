// CPU kernels on raw pointers; every matrix is row-major and contiguous.
#pragma once

#include <cstdint>

#include "bfloat16.h"

// qweight [rows, columns/2] two codes in a byte, scales [rows, columns/64] -> out [rows, columns].
void expand_int4(const int8_t* qweight, const float* scales, float* out, int64_t rows, int64_t columns, int threads);

// One row at a time: y = (x + shift) / smooth, scale = absmax(y) / 127, codes = round(y / scale). smooth [columns] or null.
template <typename T>
void quantize_int8(
    const T* x, const float* smooth, float shift, int8_t* codes, float* scales, int64_t rows, int64_t columns, int threads);

// out = accumulator * ascales[row] * wscales[column] + bias[column]; bias [columns] or null.
template <typename T>
void rescale_int32(
    const int32_t* accumulator, const float* ascales, const float* wscales, const float* bias, T* out, int64_t rows,
    int64_t columns, int threads);
