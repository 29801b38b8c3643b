// INT8 codes of one row of activations.
#pragma once

#include "isas.h"

namespace halfbyte {
namespace {

constexpr float kLargest = 127.0f;
// Adding 1.5 * 2^23 rounds a small float to the nearest integer, ties to even, and leaves it in the low bits.
constexpr float kRounder = 12582912.0f;
// One code of headroom keeps 127 * scale finite.
constexpr float kScaleLimit = 0x1.fffffep+127f / 128;
// Peaks between these leave every step of a quotient far from overflow, and its remainder exact wherever a code depends on it.
constexpr float kSmallPeak = 0x1p-80f, kLargePeak = 0x1p+80f;

ALWAYS_INLINE uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

ALWAYS_INLINE float float_of(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Where the codes of a row go: chunks of kCodes of them, `stride` bytes apart, each plus kOffset.
template <typename Element, int kCodeOffset>
struct CodeRow {
    using Code = Element;
    static constexpr int64_t kCodes = 64 / sizeof(Code);
    static constexpr int32_t kOffset = kCodeOffset;

    uint8_t* first;
    int64_t stride;

    ALWAYS_INLINE Code* chunk(int64_t index) const { return reinterpret_cast<Code*>(first + index * stride); }
};

// a / b from inverse = 1 / b: the rounded product and one correction by its exact remainder, several times as fast as dividing.
// Before its last rounding it is off by 2^-46 of itself at most, so it is the rounded quotient but for about one pair in millions.
template <bool kFma>
ALWAYS_INLINE float quotient(float a, float b, float inverse) {
    if (!kFma) return a / b;
    const float estimate = a * inverse;
    return __builtin_fmaf(__builtin_fmaf(-estimate, b, a), inverse, estimate);
}

template <bool kFma, class Codes>
ALWAYS_INLINE void write_codes(const float* y, float scale, int64_t columns, const Codes& out) {
    const float inverse = 1 / scale;
    const auto code = [&](int64_t column) {
        const float rounded = quotient<kFma>(y[column], scale, inverse) + kRounder;
        return typename Codes::Code(int32_t(bits_of(rounded) - bits_of(kRounder)) + Codes::kOffset);
    };
    int64_t i = 0;
    for (; i + Codes::kCodes <= columns; i += Codes::kCodes) {
        auto* chunk = out.chunk(i / Codes::kCodes);
        for (int64_t j = 0; j < Codes::kCodes; ++j) chunk[j] = code(i + j);
    }
    for (auto* chunk = out.chunk(i / Codes::kCodes); i < columns; ++i) *chunk++ = code(i);
}

// y[i] = value(i) -> the largest magnitude. The magnitude bits of a float order like the float, and NaN above infinity: an integer
// maximum vectorizes and keeps NaN.
template <class Value>
ALWAYS_INLINE float peak_of(float* y, int64_t columns, Value value) {
    uint32_t peak = 0;
    for (int64_t i = 0; i < columns; ++i) {
        y[i] = value(i);
        const uint32_t magnitude = bits_of(y[i]) & 0x7FFFFFFF;
        peak = magnitude > peak ? magnitude : peak;
    }
    return float_of(peak);
}

// Zeros, denormals, infinity, NaN and all that comes near them.
template <typename T, class Codes>
__attribute__((noinline)) float quantize_extreme_row(
    const T* x, const float* smooth, float shift, float* y, int64_t columns, const Codes& out) {
    const float peak = peak_of(y, columns, [&](int64_t i) { return (to_float(x[i]) + shift) / (smooth ? smooth[i] : 1); });
    float scale = peak / kLargest;
    if (scale == 0) scale = 1;
    if (scale > kScaleLimit) scale = kScaleLimit;
    for (int64_t i = 0; i < columns; ++i) {
        float code = y[i] / scale;
        code = code > kLargest ? kLargest : code;
        code = code < -kLargest ? -kLargest : code;
        y[i] = code == code ? code : 0;
    }
    write_codes<false>(y, 1.0f, columns, out);
    return scale;
}

// Rows that go through each half of their quantization together: one row's second half waits long for its first.
constexpr int kRowsTogether = 4;

// y = (x + shift) / smooth, scale = absmax(y) / 127, codes = round(y / scale) of `rows` rows, at most kRowsTogether, of x
// [rows, columns] -> scales. y: [rows, columns] scratch; smooth may be null; inverse_smooth is 1 / smooth; out(row): its CodeRow.
template <bool kFma, typename T, class Out>
ALWAYS_INLINE void quantize_rows(
    const T* x, const float* smooth, const float* inverse_smooth, float shift, float* y, int64_t columns, int rows, float* scales,
    const Out& out) {
    float peaks[kRowsTogether];
    for (int row = 0; row < rows; ++row) {
        const T* in = x + row * columns;
        float* here = y + row * columns;
        if (smooth) {
            peaks[row] = peak_of(here, columns, [&](int64_t i) {
                return quotient<kFma>(to_float(in[i]) + shift, smooth[i], inverse_smooth[i]);
            });
        } else {
            peaks[row] = peak_of(here, columns, [&](int64_t i) { return to_float(in[i]) + shift; });
        }
    }
    for (int row = 0; row < rows; ++row) {
        float* here = y + row * columns;
        if (peaks[row] > kSmallPeak && peaks[row] < kLargePeak) {
            scales[row] = peaks[row] / kLargest;
            write_codes<kFma>(here, scales[row], columns, out(row));
        } else {
            scales[row] = quantize_extreme_row(x + row * columns, smooth, shift, here, columns, out(row));
        }
    }
}

ALWAYS_INLINE void invert(const float* smooth, float* inverse_smooth, int64_t columns) {
    for (int64_t i = 0; smooth && i < columns; ++i) inverse_smooth[i] = 1 / smooth[i];
}

}  // namespace
}  // namespace halfbyte
