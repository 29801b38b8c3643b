// What the two 256-bit variants share.
#pragma once

#include "vectors.h"

namespace halfbyte {
namespace {

struct NarrowAvx : Vectors<32> {
    // 12 sums, two vectors of codes, a broadcast and a product: all 16 registers.
    static constexpr int kRows = 6, kVectors = 2, kDownRows = 6;
    static constexpr bool kBf16Dot = false, kFma = true;

    ALWAYS_INLINE static Floats multiply_add(float a, Floats b, Floats sum) {
        return (Floats)_mm256_fmadd_ps(_mm256_set1_ps(a), (__m256)b, (__m256)sum);
    }
};

}  // namespace
}  // namespace halfbyte
