// What the two AVX-512 variants share.
#pragma once

#include "vectors.h"

namespace halfbyte {
namespace {

struct WideVnni : Vectors<64> {
    using Code = uint8_t;
    // 24 sums, two vectors of codes and a broadcast: 27 of 32 registers.
    static constexpr int kRows = 12, kVectors = 2, kDownRows = 6;
    static constexpr int kCodesPerStep = 4, kCodeOffset = 128;
    static constexpr bool kFma = true;

    ALWAYS_INLINE static Ints load_codes(const uint8_t* codes) { return load_vector<Ints>(codes); }

    ALWAYS_INLINE static Ints dot(Ints sum, int32_t a, Ints b) {
        return (Ints)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(a), (__m512i)b);
    }

    ALWAYS_INLINE static Floats multiply_add(float a, Floats b, Floats sum) {
        return (Floats)_mm512_fmadd_ps(_mm512_set1_ps(a), (__m512)b, (__m512)sum);
    }
};

}  // namespace
}  // namespace halfbyte
