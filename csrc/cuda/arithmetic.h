// float32 arithmetic with one result on device and host: nothing is contracted, every multiply-add is written as fma.
#pragma once

#include "platform.h"

#ifdef HALFBYTE_SIMT
#include <bit>
#include <cmath>
#endif

namespace halfbyte::ptx {

#ifdef HALFBYTE_SIMT
DEVICE uint32_t float_bits(float x) { return std::bit_cast<uint32_t>(x); }
DEVICE float bits_float(uint32_t bits) { return std::bit_cast<float>(bits); }
DEVICE float fma(float a, float b, float c) { return std::fma(a, b, c); }
DEVICE float divide(float a, float b) { return a / b; }
DEVICE float reciprocal(float x) { return 1.0f / x; }
// Within two units in the last place; the device flushes subnormal numbers to zero. For results that do not depend on its last bits.
DEVICE float reciprocal_approx(float x) { return 1.0f / x; }
// 2^x within two units in the last place; the device flushes subnormal numbers to zero. As reciprocal_approx.
DEVICE float exp2_approx(float x) { return std::exp2(x); }
DEVICE float sqrt(float x) { return std::sqrt(x); }
DEVICE float round_even(float x) { return std::nearbyint(x); }
// max(peak, |x|) for a peak that is not negative; NaN if either is.
DEVICE float larger_magnitude(float peak, float x) { return std::fabs(x) > peak || x != x ? std::fabs(x) : peak; }
#else
DEVICE uint32_t float_bits(float x) { return __float_as_uint(x); }
DEVICE float bits_float(uint32_t bits) { return __uint_as_float(bits); }
DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE float divide(float a, float b) { return __fdiv_rn(a, b); }
DEVICE float reciprocal(float x) { return __frcp_rn(x); }
DEVICE float reciprocal_approx(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE float sqrt(float x) { return __fsqrt_rn(x); }
DEVICE float round_even(float x) { return rintf(x); }
DEVICE float larger_magnitude(float peak, float x) {
    float y;
    asm("{\n\t.reg .f32 magnitude;\n\tabs.f32 magnitude, %2;\n\tmax.NaN.f32 %0, %1, magnitude;\n\t}"
        : "=f"(y)
        : "f"(peak), "f"(x));
    return y;
}
#endif

}  // namespace halfbyte::ptx
