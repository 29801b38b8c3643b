// Activations at the tensor cores' pace: by the approximations of 2^x and 1 / x, within 2e-6 of the exact values, relative.
#pragma once

#include "gemm_epilogue.h"

namespace halfbyte {

// x / (1 + 2^exponent): 0 where the power is infinite.
DEVICE float times_sigmoid(float x, float exponent) { return x * ptx::reciprocal_approx(1.0f + ptx::exp2_approx(exponent)); }

DEVICE void activate_fast(float (&values)[kVector], Activation activation) {
    constexpr float kLog2E = 1.44269504f, kSlope = 2 * kLog2E * 0.79788456f;
    if (activation == Activation::kGeluTanh) {
        // (1 + tanh z) / 2 = 1 / (1 + e^-2z).
        UNROLL
        for (float& y : values) y = times_sigmoid(y, -kSlope * ptx::fma(0.044715f * y * y, y, y));
    } else if (activation == Activation::kSilu) {
        UNROLL
        for (float& y : values) y = times_sigmoid(y, -kLog2E * y);
    } else if (activation == Activation::kGeluErf) {
        UNROLL
        for (float& y : values) y = activate(y, Activation::kGeluErf);
    }
}

}  // namespace halfbyte
