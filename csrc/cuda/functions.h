// exp, tanh and erf in float32, within 2 units in the last place, with the same bits on device and host.
// The polynomials are minimax fits over the ranges named beside them.
#pragma once

#include "arithmetic.h"

namespace halfbyte::ptx {

template <int kTerms>
DEVICE float polynomial(float x, const float (&coefficients)[kTerms]) {
    float sum = coefficients[kTerms - 1];
    UNROLL
    for (int i = kTerms - 2; i >= 0; --i) sum = fma(sum, x, coefficients[i]);
    return sum;
}

DEVICE float copy_sign(float magnitude, float sign) {
    return bits_float(float_bits(magnitude) | (float_bits(sign) & 0x80000000u));
}

DEVICE float exp(float x) {
    // Beyond these the result is infinite or zero; a NaN fails both tests and goes through.
    x = x > 89.0f ? 89.0f : x;
    x = x < -104.0f ? -104.0f : x;
    const float round_to_integer = 0x1.8p23f;
    float shifted = fma(x, 1.44269504f, round_to_integer);
    int n = int(float_bits(shifted) - float_bits(round_to_integer));
    float whole = shifted - round_to_integer;
    // ln 2 in two parts, the first with so few bits that its product is exact.
    float r = fma(whole, -0.693145752f, x);
    r = fma(whole, -1.42860677e-6f, r);
    // (e^r - 1 - r) / r^2 for |r| <= 0.347.
    const float coefficients[] = {0.5f, 0.166665182f, 0.0416662022f, 0.00836896989f, 0.00139506266f};
    float y = 1.0f + fma(r * r, polynomial(r, coefficients), r);
    // 2^n in two factors, as n reaches beyond the exponents of normal floats.
    int half = n >> 1;
    return y * bits_float(uint32_t(half + 127) << 23) * bits_float(uint32_t(n - half + 127) << 23);
}

DEVICE float tanh(float x) {
    float t = bits_float(float_bits(x) & 0x7fffffffu);
    if (t < 0.625f) {
        // (tanh(t) / t - 1) / t^2 by u = t^2.
        const float coefficients[] = {-0.333332837f, 0.133314908f, -0.0537434928f, 0.0206505712f, -0.00571702793f};
        float u = t * t;
        return copy_sign(fma(x * u, polynomial(u, coefficients), x), x);
    }
    return copy_sign(1.0f - divide(2.0f, exp(2.0f * t) + 1.0f), x);
}

DEVICE float erf(float x) {
    float t = bits_float(float_bits(x) & 0x7fffffffu);
    if (t < 1.0f) {
        // erf(t) / t - 1 by t^2.
        const float coefficients[] = {0.128379166f,   -0.37612626f,    0.112836003f,   -0.0268544443f,
                                      0.00518953381f, -0.000802082883f, 7.88908073e-05f};
        return fma(x, polynomial(t * t, coefficients), x);
    }
    // -log(1 - erf(t)) for 1 <= t <= 4, where erf rounds to 1.
    const float coefficients[] = {0.000353698037f, 1.12704015f,   0.638225496f,    0.103037506f,
                                  -0.0218053851f,  0.00293962448f, -0.000185575802f};
    t = t > 4.0f ? 4.0f : t;
    return copy_sign(1.0f - exp(-polynomial(t, coefficients)), x);
}

}  // namespace halfbyte::ptx
