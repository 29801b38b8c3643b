// Four-bit weight codes to pairs of 16-bit numbers for mma_16bit, without rounding, and the scales that follow.
#pragma once

#include "ptx_packed.h"
#include "runs.h"
#include "w4a16_arguments.h"

namespace halfbyte {

// What an NVFP4 weight is short of after decoding: its outer scale, and this power of two that keeps every step in range.
constexpr float kNvfp4Remainder = 256.0f;

template <class T>
struct CodeBits;

template <>
struct CodeBits<Half> {
    static constexpr uint32_t kOne = 0x3c003c00;
    static constexpr uint32_t kOffset = 0x64006400;        // 1024, whose last bit is 1
    static constexpr uint32_t kMinusMiddle = 0xe408e408;   // -(1024 + 8)
    static constexpr int kMagnitudeShift = 3;              // the exponent and mantissa of E2M1 then stand for value * 2^-14
    static constexpr float kScaleFactor = 0x1p6f;
};

template <>
struct CodeBits<Bfloat> {
    static constexpr uint32_t kOne = 0x3f803f80;
    static constexpr uint32_t kOffset = 0x43004300;        // 128, whose last bit is 1
    static constexpr uint32_t kMinusMiddle = 0xc308c308;   // -(128 + 8)
    static constexpr int kMagnitudeShift = 6;              // value * 2^-126
    static constexpr float kScaleFactor = 0x1p118f;
};

// The factor of a group of 16 NVFP4 codes. E4M3 has 4 significant bits and E2M1 has 2, so the product is exact in 16 bits.
template <class T>
DEVICE uint32_t nvfp4_multiplier(uint8_t scale) {
    const float factor = ptx::from_e4m3(scale) * CodeBits<T>::kScaleFactor;
    return ptx::pack2<T>(factor, factor);
}

// codes: nibble i is column i of eight. pairs[i] holds columns i (low half) and i + 4: integers for int4, value * scale / 256
// for nvfp4.
template <class T, WeightFormat kFormat>
DEVICE void decode(uint32_t codes, uint32_t nvfp4_multiplier, uint32_t (&pairs)[4]) {
    using Bits = CodeBits<T>;
    UNROLL
    for (int i = 0; i < 4; ++i) {
        if constexpr (kFormat == WeightFormat::kInt4) {
            // Flipping a nibble's sign bit adds 8, and an integer below 16 fits the last bits of the offset.
            const uint32_t raised = ptx::and_xor(codes >> (4 * i), 0x000f000fu, Bits::kOffset | 0x00080008u);
            pairs[i] = ptx::fma2<T>(raised, Bits::kOne, Bits::kMinusMiddle);
        } else {
            const uint32_t top = codes << (12 - 4 * i);
            const uint32_t magnitude = top >> Bits::kMagnitudeShift & (0x70007000u >> Bits::kMagnitudeShift);
            pairs[i] = ptx::fma2<T>(ptx::and_xor(top, 0x80008000u, magnitude), nvfp4_multiplier, 0x80008000u);
        }
    }
}

// Eight neighbouring 16-bit columns in the order of `decode`.
DEVICE void pair_columns(const Words4& columns, uint32_t (&pairs)[4]) {
    pairs[0] = ptx::low_halves(columns.x, columns.z);
    pairs[1] = ptx::high_halves(columns.x, columns.z);
    pairs[2] = ptx::low_halves(columns.y, columns.w);
    pairs[3] = ptx::high_halves(columns.y, columns.w);
}

// What one weight row and group's sum of int4 products is multiplied by.
DEVICE float int4_scale(uint16_t bits, Dtype dtype) {
    return dtype == Dtype::kHalf ? ptx::to_float(Half{bits}) : ptx::to_float(Bfloat{bits});
}

// What the sum over all of K is multiplied by.
DEVICE float remaining_scale(const W4A16Arguments& arguments) {
    return arguments.wtscale ? ptx::load_readonly(arguments.wtscale) * kNvfp4Remainder : 1.0f;
}

DEVICE float bias_of(const W4A16Arguments& arguments, int column) {
    return arguments.bias.data ? load_element(arguments.bias, column) : 0.0f;
}

}  // namespace halfbyte
