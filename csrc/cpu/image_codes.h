// INT8 codes of an image's pixels, one scale for the whole image.
#pragma once

#include "quantize_row.h"

namespace halfbyte {
namespace {

ALWAYS_INLINE uint32_t stored_bits(float value) { return bits_of(value); }

ALWAYS_INLINE uint16_t stored_bits(bfloat16 value) { return value.bits; }

// The stored bits of a magnitude: they order like it, and NaN above infinity.
template <typename T>
ALWAYS_INLINE auto magnitude_bits(T value) {
    using Bits = decltype(stored_bits(value));
    return Bits(stored_bits(value) & (Bits(~Bits(0)) >> 1));
}

template <typename Bits>
ALWAYS_INLINE float magnitude(Bits bits) {
    return float_of(uint32_t(bits) << (32 - 8 * sizeof(Bits)));
}

// in [rows, columns] -> out [columns, rows]. Eight bytes of a row of out are put together first: storing its elements one by one
// would take as long as the product of a small layer.
template <typename T>
void transpose(const T* in, int64_t in_stride, int64_t rows, int64_t columns, T* out, int64_t out_stride) {
    constexpr int64_t kTogether = 8 / sizeof(T), kColumns = 64;
    int64_t row = 0;
    for (; row + kTogether <= rows; row += kTogether, in += kTogether * in_stride) {
        for (int64_t first = 0; first < columns; first += kColumns) {
            const int64_t count = std::min(kColumns, columns - first);
            uint64_t words[kColumns];
            for (int64_t i = 0; i < count; ++i) {
                uint64_t word = 0;
                for (int64_t j = 0; j < kTogether; ++j)
                    word |= uint64_t(stored_bits(in[j * in_stride + first + i])) << (j * 8 * sizeof(T));
                words[i] = word;
            }
            for (int64_t i = 0; i < count; ++i) __builtin_memcpy(out + (first + i) * out_stride + row, words + i, 8);
        }
    }
    for (; row < rows; ++row, in += in_stride)
        for (int64_t i = 0; i < columns; ++i) out[i * out_stride + row] = in[i];
}

// The largest |x| / smooth of pixels with channels last; bits: room for [C] of 4 bytes.
template <typename T>
float peak_of_pixels(const T* x, int64_t pixels, int64_t channels, const float* inverse_smooth, void* bits) {
    auto* largest = static_cast<decltype(magnitude_bits(*x))*>(bits);
    for (int64_t i = 0; i < channels; ++i) largest[i] = 0;
    for (int64_t pixel = 0; pixel < pixels; ++pixel, x += channels)
        for (int64_t i = 0; i < channels; ++i) largest[i] = std::max(largest[i], magnitude_bits(x[i]));
    uint32_t peak = 0;
    for (int64_t i = 0; i < channels; ++i) peak = std::max(peak, bits_of(magnitude(largest[i]) * inverse_smooth[i]));
    return float_of(peak);
}

// The same of whole planes, channel after channel.
template <typename T>
float peak_of_planes(const T* x, int64_t pixels, int64_t channels, const float* inverse_smooth) {
    uint32_t peak = 0;
    for (int64_t channel = 0; channel < channels; ++channel, x += pixels) {
        decltype(magnitude_bits(*x)) largest = 0;
        for (int64_t i = 0; i < pixels; ++i) largest = std::max(largest, magnitude_bits(x[i]));
        peak = std::max(peak, bits_of(magnitude(largest) * inverse_smooth[channel]));
    }
    return float_of(peak);
}

ALWAYS_INLINE float scale_of_peak(float peak) {
    const float scale = peak / kLargest;
    return scale == 0 ? 1 : scale > kScaleLimit ? kScaleLimit : scale;
}

// x [pixels, C] -> codes; multipliers [C]: 1 / (smooth * scale).
template <class Isa, typename T>
void quantize_pixels(const T* x, int64_t pixels, int64_t channels, const float* multipliers, typename Isa::Code* codes) {
    for (int64_t pixel = 0; pixel < pixels; ++pixel, x += channels, codes += channels) {
        for (int64_t i = 0; i < channels; ++i) {
            // Clamped, and NaN out of the way, because no integer stands for what an image with infinities makes.
            float value = to_float(x[i]) * multipliers[i];
            value = value > kLargest ? kLargest : value;
            value = value < -kLargest ? -kLargest : value;
            value = value == value ? value : 0;
            codes[i] = typename Isa::Code(int32_t(bits_of(value + kRounder) - bits_of(kRounder)) + Isa::kCodeOffset);
        }
    }
}

}  // namespace
}  // namespace halfbyte
