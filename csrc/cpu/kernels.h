// CPU kernels on raw pointers; every matrix is row-major and contiguous.
#pragma once

#include <cstdint>

namespace halfbyte {

// qweight [rows, columns/2] two codes in a byte, scales [rows, columns/64] -> out [rows, columns].
void expand_int4(const int8_t* qweight, const float* scales, float* out, int64_t rows, int64_t columns, int threads);

// Sizes of a weight, K in and N out, and of the low-rank branch beside it, whose factors are bfloat16 or float32.
struct WeightShape {
    int64_t n, k, rank;
    bool bf16;
};

// qweight [N, K] in -127..127, wscales [N]; proj_down [K, R] or null, proj_up [N, R].
struct Weight {
    const int8_t* qweight;
    const float* wscales;
    const void* proj_down;
    const void* proj_up;
};

// x [M, K] float32 or bfloat16 -> codes [M, K], scales [M].
struct Quantization {
    const void* x;
    bool x_bf16;
    const float* smooth;
    float shift;
    int8_t* codes;
    float* scales;
    int64_t m, k;
};

// out [M, N] = activations @ weight^T + low_rank_act @ proj_up^T + bias, in float32, rounded once.
// Activations are x [M, K] of the branch's type, quantized on the way, or else qx [M, K], ascales [M] and low_rank_act [M, R].
struct Linear {
    WeightShape shape;
    const uint8_t* packed;
    int64_t m;
    const void* x;
    const float* smooth;
    const int8_t* qx;
    const float* ascales;
    const void* low_rank_act;
    const void* bias;
    bool bias_bf16;
    void* out;
    bool out_bf16;
};

// out [B, N, Ho, Wo] = x [B, C, H, W] * weight + bias, x quantized on the way with one scale per image. K is kh*kw*C, in that order.
// x and out are of the branch's type, both with channels last or neither; rank 0 only. Rows and columns before the first one, and
// after the last one, are zero; pairs are of height and width. peaks: [B, threads] for the kernel to write.
struct Convolution {
    WeightShape shape;
    const uint8_t* packed;
    const void* x;
    const float* smooth;
    const void* bias;
    bool bias_bf16, channels_last;
    float* peaks;
    void* out;
    int64_t batch, channels;
    int64_t size[2], out_size[2], kernel[2], stride[2], padding[2], dilation[2];
};

// One instruction set's implementation. A packed weight is read by the same instruction set only.
struct Kernels {
    const char* isa;
    bool (*supported)();
    int64_t (*packed_bytes)(const WeightShape& shape);
    void (*pack)(const WeightShape& shape, const Weight& weight, uint8_t* packed);
    void (*quantize)(const Quantization& work, int threads);
    void (*linear)(const Linear& work, int threads);
    void (*convolve)(const Convolution& work, int threads);
};

// Every instruction set this was compiled for, widest first, ended by null.
extern const Kernels* const kKernels[];

}  // namespace halfbyte
