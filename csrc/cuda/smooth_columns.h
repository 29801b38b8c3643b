// What activations are divided by before they are quantized.
#pragma once

#include "quantize_values.h"

namespace halfbyte {

template <class T>
struct SmoothColumns {
    const T* smooth;         // [columns], or null
    const T* own = nullptr;  // this thread's columns
    // Zero where there is nothing to load: a register written on one path only would stay occupied on all.
    uint32_t words[8] = {};
    float reciprocals[kRun] = {};

    DEVICE explicit SmoothColumns(const void* smooth) : smooth(static_cast<const T*>(smooth)) {}

    DEVICE void load(int column) {
        if (!smooth) return;
        own = smooth + column;
        load_words(own, words);
        UNROLL
        for (int i = 0; i < 8; ++i) {
            float low, high;
            ptx::unpack2<T>(words[i], low, high);
            reciprocals[2 * i] = ptx::reciprocal_approx(low);
            reciprocals[2 * i + 1] = ptx::reciprocal_approx(high);
        }
    }

    // values = (x + shift) / smooth, for x in values. Returns the bits of their peak. word(i): two of x again.
    template <class Word>
    DEVICE uint32_t apply(float shift, float (&values)[kRun], Word word) const {
        UNROLL
        for (int i = 0; i < kRun; ++i) values[i] += shift;
        if (!smooth) return peak_bits(values);
        UNROLL
        for (int i = 0; i < 8; ++i) {
            float low, high;
            ptx::unpack2<T>(words[i], low, high);
            values[2 * i] = quotient(values[2 * i], low, reciprocals[2 * i]);
            values[2 * i + 1] = quotient(values[2 * i + 1], high, reciprocals[2 * i + 1]);
        }
        uint32_t peak = peak_bits(values);
        constexpr uint32_t kLowest = 0x21800000, kHighest = 0x5d800000;  // 2^-60 and 2^60
        return peak - kLowest <= kHighest - kLowest ? peak : apply_slowly(shift, values, word);
    }

private:
    // For infinities, NaN and numbers so small or large that the short division is not exact. Rolled: it is rare, and long.
    template <class Word>
    DEVICE uint32_t apply_slowly(float shift, float (&values)[kRun], Word word) const {
        ROLLED
        for (int i = 0; i < 8; ++i) {
            float low, high;
            ptx::unpack2<T>(word(i), low, high);
            low = ptx::divide(low + shift, ptx::to_float(ptx::load_readonly(own + 2 * i)));
            high = ptx::divide(high + shift, ptx::to_float(ptx::load_readonly(own + 2 * i + 1)));
            UNROLL
            for (int j = 0; j < 8; ++j) {
                values[2 * j] = i == j ? low : values[2 * j];
                values[2 * j + 1] = i == j ? high : values[2 * j + 1];
            }
        }
        return peak_bits(values);
    }
};

}  // namespace halfbyte
