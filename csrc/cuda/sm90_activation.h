// Activations in the registers of the sums, at the tensor cores' pace: by the approximations of 2^x and 1 / x, within 2e-6 of the
// exact values, relative.
#pragma once

#include "gemm_epilogue.h"
#include "ptx_wgmma.h"

namespace halfbyte {

// x / (1 + 2^exponent): 0 where the power is infinite.
DEVICE float times_sigmoid(float x, float exponent) { return x * ptx::reciprocal_approx(1.0f + ptx::exp2_approx(exponent)); }

template <int kCount>
DEVICE void activate_fast(float (&values)[kCount], Activation activation) {
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

// y: bits of floats. gated: the second half are the gates of the first, which alone has a meaning afterwards.
// Rolled, so that the code of all activations exists once; which values are taken then takes a comparison.
template <int kValues>
DEVICE void activate_tile(uint32_t (&y)[kValues], Activation activation, bool gated) {
    constexpr int kTogether = 16, kSteps = kValues / kTogether;
    static_assert(kSteps * kTogether == kValues && kSteps % 2 == 0, "a step is all values or all gates");
    const int steps = gated ? kSteps / 2 : kSteps;
    ROLLED
    for (int step = 0; step < steps; ++step) {
        // As bits: of two equal numbers the compiler may take the variable one, and index the registers.
        const uint32_t given = 1u << step, taken = gated ? given << kSteps / 2 : given;
        float activated[kTogether];
        UNROLL
        for (int each = 0; each < kSteps; ++each) {
            if (!(taken >> each & 1)) continue;
            UNROLL
            for (int i = 0; i < kTogether; ++i) activated[i] = ptx::bits_float(y[kTogether * each + i]);
            KEEP_APART();
        }
        activate_fast(activated, activation);
        UNROLL
        for (int each = 0; each < kSteps; ++each) {
            if (!(given >> each & 1)) continue;
            UNROLL
            for (int i = 0; i < kTogether; ++i) {
                uint32_t& value = y[kTogether * each + i];
                value = ptx::float_bits(gated ? ptx::bits_float(value) * activated[i] : activated[i]);
            }
            KEEP_APART();
        }
    }
}

}  // namespace halfbyte
