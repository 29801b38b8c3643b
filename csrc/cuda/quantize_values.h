// Quantizing 16 consecutive columns of one row, held by one thread: a whole nvfp4 block, a quarter of an int4 group.
// Bit for bit what engine/formats computes.
#pragma once

#include "packed_run.h"
#include "ptx_packed.h"
#include "quantize_arguments.h"

namespace halfbyte {

DEVICE bool is_nan(float x) { return x != x; }
DEVICE uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }
DEVICE float clamp(float x, float bound) { return x > bound ? bound : x < -bound ? -bound : x; }

// The bits of the largest magnitude. Compared as integers a NaN exceeds infinity, so none is lost.
DEVICE uint32_t peak_bits(const float (&values)[kRun]) {
    uint32_t peak = 0;
    UNROLL
    for (int i = 0; i < kRun; ++i) peak = larger(peak, ptx::float_bits(values[i]) & 0x7fffffffu);
    return peak;
}

// The correctly rounded quotient, as long as nothing here leaves the range of normal floats; `reciprocal` is that of `divisor`,
// rounded to nearest. Source: Markstein, Computation of elementary functions on the IBM RISC System/6000, 1990, theorem 8.
DEVICE float quotient(float x, float divisor, float reciprocal) {
    float estimate = x * reciprocal;
    // The remainder's sign is turned twice so that -0 stays -0.
    return ptx::fma(-ptx::fma(estimate, divisor, -x), reciprocal, estimate);
}

template <class Scale>
constexpr float kLargest = 0x1.fffffep127f;
template <>
inline constexpr float kLargest<Half> = 65504.0f;
template <>
inline constexpr float kLargest<Bfloat> = 0x1.fep127f;

DEVICE float largest_code(ActFormat format) {
    return format == ActFormat::kInt4 ? 7.0f : format == ActFormat::kUint4 ? 15.0f : format == ActFormat::kInt8 ? 127.0f : 448.0f;
}

// formats.scaling.scale_from_peak, rounded to Scale (Half, Bfloat or float); every format but nvfp4.
template <class Scale>
DEVICE float scale_from_peak(float peak, ActFormat format) {
    constexpr float kMax = kLargest<float>;
    const float headroom = format == ActFormat::kInt4 ? kMax / 8 : format == ActFormat::kUint4 ? kMax / 16
                         : format == ActFormat::kInt8 ? kMax / 128 : kMax / 449;
    const float limit = kLargest<Scale> < headroom ? kLargest<Scale> : headroom;
    float scale = ptx::divide(peak, largest_code(format));
    scale = ptx::to_float(ptx::from_float<Scale>(scale > limit ? limit : scale));
    return scale == 0 ? 1.0f : scale;
}

// values / scale, exact to the last bit where it is not rounded to zero afterwards, and clamped to +-bound
// unless |values| <= peak makes that needless. `scale` must not be NaN.
template <int kCount>
DEVICE void divide_by_scale(float (&values)[kCount], float peak, float scale, float bound) {
    bool ordinary = scale >= 0x1p-70f && scale <= 0x1p70f && peak <= (bound + 0.25f) * scale;
    if (!ordinary) {
        float towards_one = scale < 0x1p-70f ? 0x1p100f : scale > 0x1p70f ? 0x1p-100f : 1.0f;
        scale *= towards_one;
        UNROLL
        for (int i = 0; i < kCount; ++i) values[i] = clamp(values[i] * towards_one, bound * scale);
    }
    float reciprocal = ptx::reciprocal(scale);
    UNROLL
    for (int i = 0; i < kCount; ++i) values[i] = quotient(values[i], scale, reciprocal);
}

// Half to even, in the low bits: 1.5 * 2^23 leaves a float's last bit the weight of one.
DEVICE uint32_t rounded_bits(float x) { return ptx::float_bits(x + 0x1.8p23f); }

// The codes that quotients by a scale round to, in words that are zero; every format but nvfp4.
template <int kCount, int kWords>
DEVICE void round_run(const float (&quotients)[kCount], ActFormat format, uint32_t (&words)[kWords]) {
    if (format == ActFormat::kFp8) {
        UNROLL
        for (int i = 0; i < kCount; i += 2) words[i / 4] |= ptx::to_e4m3_pair(quotients[i], quotients[i + 1]) << (i % 4 * 8);
    } else if (format == ActFormat::kInt8) {
        UNROLL
        for (int i = 0; i < kCount; i += 4)
            words[i / 4] = ptx::low_bytes(rounded_bits(quotients[i]), rounded_bits(quotients[i + 1]),
                                          rounded_bits(quotients[i + 2]), rounded_bits(quotients[i + 3]));
    } else {
        UNROLL
        for (int i = 0; i < kCount; ++i) words[i / 8] |= (rounded_bits(quotients[i]) & 0xfu) << (i % 8 * 4);
    }
}

// Codes of values for a scale known already, in the first words; every format but nvfp4. `peak` is that of all values the scale
// was taken from, 0 when the scale has not been rounded. Unsigned values must not be negative.
template <int kCount, int kWords>
DEVICE void quantize_run(float (&values)[kCount], ActFormat format, float peak, float scale, uint32_t (&words)[kWords]) {
    UNROLL
    for (uint32_t& word : words) word = format == ActFormat::kFp8 && is_nan(scale) ? 0x7f7f7f7fu : 0u;
    if (is_nan(scale)) return;
    divide_by_scale(values, peak, scale, largest_code(format));
    round_run(values, format, words);
}

struct Nvfp4Block {
    uint32_t words[2];
    uint8_t scale;
};

// The block for a scale that maps its peak to `target`, and its squared error.
DEVICE Nvfp4Block round_nvfp4(const float (&values)[kRun], float peak, float target, float& error) {
    Nvfp4Block block{};
    float scale = ptx::divide(peak, target);
    block.scale = ptx::to_e4m3(scale < 0x1p-9f ? 0x1p-9f : scale);
    scale = ptx::from_e4m3(block.scale);
    const float reciprocal = ptx::reciprocal(scale);
    error = 0;
    UNROLL
    for (int i = 0; i < kRun; ++i) {
        const uint32_t code = ptx::to_e2m1(quotient(values[i], scale, reciprocal));
        const float difference = ptx::from_e2m1(code) * scale - values[i];
        block.words[i / 8] |= code << (i % 8 * 4);
        error += difference * difference;
    }
    return block;
}

// The outer scale is 1; `peak` is that of the values.
DEVICE Nvfp4Block quantize_nvfp4(float (&values)[kRun], float peak, bool four_over_six) {
    if (is_nan(peak)) return {{0, 0}, 0x7f};
    constexpr float kFarTooLarge = 0x1p20f;  // for the largest scale and code, 448 * 6; and no quotient overflows below it
    if (peak > kFarTooLarge) {
        UNROLL
        for (int i = 0; i < kRun; ++i) values[i] = clamp(values[i], kFarTooLarge);
    }
    float least, error;
    Nvfp4Block best = round_nvfp4(values, peak, 6.0f, least);
    if (!four_over_six) return best;
    const Nvfp4Block other = round_nvfp4(values, peak, 4.0f, error);
    return error < least ? other : best;
}

}  // namespace halfbyte
