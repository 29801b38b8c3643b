// 16-bit, 8-bit and 4-bit floating-point numbers: storage types and conversions, rounded to nearest even.
#pragma once

#include "arithmetic.h"

namespace halfbyte {

struct Half {
    uint16_t bits;
};
struct Bfloat {
    uint16_t bits;
};
struct alignas(8) Words2 {
    uint32_t x, y;
};
struct alignas(16) Words4 {
    uint32_t x, y, z, w;
};

namespace ptx {

// The high bits of a finite float's magnitude, rounded to nearest even at bit `kDropped`; a carry moves into the exponent.
template <int kDropped>
DEVICE uint32_t round_off(uint32_t magnitude) {
    return (magnitude + (1u << (kDropped - 1)) - 1 + ((magnitude >> kDropped) & 1)) >> kDropped;
}

// The tensor cores' and cvt's NaN for 16-bit types.
constexpr uint16_t kQuietNan16 = 0x7fff;

#ifdef HALFBYTE_SIMT
DEVICE float to_float(Half x) {
    uint32_t magnitude = (x.bits & 0x7fffu) << 13;
    uint32_t bits = magnitude >= (31u << 23) ? magnitude | 0x7f800000u : float_bits(bits_float(magnitude) * 0x1p112f);
    return bits_float(bits | (x.bits & 0x8000u) << 16);
}

DEVICE Half to_half(float x) {
    uint32_t magnitude = float_bits(x) & 0x7fffffffu;
    uint32_t sign = float_bits(x) >> 16 & 0x8000u;
    if (magnitude > 0x7f800000u) return {kQuietNan16};
    if (magnitude >= float_bits(65520.0f)) return {uint16_t(sign | 0x7c00u)};
    // Below 2^-14 the grid's step is 2^-24, that of floats in [0.5, 1).
    uint32_t code = magnitude < float_bits(0x1p-14f) ? float_bits(bits_float(magnitude) + 0.5f) - float_bits(0.5f)
                                                     : round_off<13>(magnitude) - (112u << 10);
    return {uint16_t(sign | code)};
}

DEVICE Bfloat to_bfloat(float x) {
    uint32_t bits = float_bits(x);
    return {(bits & 0x7fffffffu) > 0x7f800000u ? kQuietNan16 : uint16_t(round_off<16>(bits))};
}
#else
DEVICE float to_float(Half x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

DEVICE Half to_half(float x) {
    Half y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

DEVICE Bfloat to_bfloat(float x) {
    Bfloat y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
#endif

DEVICE float to_float(Bfloat x) { return bits_float(uint32_t(x.bits) << 16); }
DEVICE float to_float(float x) { return x; }

// T: Half, Bfloat or float. NaN becomes the device's canonical NaN, as in PyTorch's own CUDA conversions.
template <class T>
DEVICE T from_float(float x);
template <>
DEVICE float from_float<float>(float x) {
    return x;
}
template <>
DEVICE Half from_float<Half>(float x) {
    return to_half(x);
}
template <>
DEVICE Bfloat from_float<Bfloat>(float x) {
    return to_bfloat(x);
}

// Two T (Half or Bfloat) in one word, `low` in the low half.
template <class T>
DEVICE uint32_t pack2(float low, float high);

#ifdef HALFBYTE_SIMT
template <class T>
DEVICE uint32_t pack2(float low, float high) {
    return from_float<T>(low).bits | uint32_t(from_float<T>(high).bits) << 16;
}
#else
template <>
DEVICE uint32_t pack2<Half>(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
template <>
DEVICE uint32_t pack2<Bfloat>(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
#endif

template <class T>
DEVICE void unpack2(uint32_t pair, float& low, float& high) {
    low = to_float(T{uint16_t(pair)});
    high = to_float(T{uint16_t(pair >> 16)});
}

// E4M3 without infinities: saturates at +-448, NaN becomes 0x7f with its sign.
DEVICE uint8_t to_e4m3(float x) {
    uint32_t sign = float_bits(x) >> 24 & 0x80u;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    uint16_t pair;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(x));
    return uint8_t(pair | sign);
#else
    uint32_t magnitude = float_bits(x) & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return uint8_t(sign | 0x7fu);
    if (magnitude >= float_bits(448.0f)) return uint8_t(sign | 0x7eu);
    // Below 2^-6 the grid's step is 2^-9, that of floats in [2^14, 2^15).
    uint32_t code = magnitude < float_bits(0x1p-6f) ? float_bits(bits_float(magnitude) + 0x1p14f) - float_bits(0x1p14f)
                                                    : round_off<20>(magnitude) - (120u << 3);
    return uint8_t(sign | code);
#endif
}

// Two codes, that of `low` in the low byte, of numbers that are not NaN.
DEVICE uint32_t to_e4m3_pair(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    uint16_t pair;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return uint32_t(to_e4m3(low)) | uint32_t(to_e4m3(high)) << 8;
#endif
}

DEVICE float from_e4m3(uint8_t code) {
    uint32_t magnitude = code & 0x7fu;
    uint32_t bits = magnitude == 0x7fu ? 0x7fc00000u : float_bits(bits_float(magnitude << 20) * 0x1p120f);
    return bits_float(bits | (code & 0x80u) << 24);
}

// E2M1: +-{0, 0.5, 1, 1.5, 2, 3, 4, 6}, ties to the even code, saturating; NaN becomes 0. Bit 3 is the sign.
DEVICE uint8_t to_e2m1(float x) {
    float magnitude = bits_float(float_bits(x) & 0x7fffffffu);
    int code = (magnitude > 0.25f) + (magnitude >= 0.75f) + (magnitude > 1.25f) + (magnitude >= 1.75f) + (magnitude > 2.5f) +
               (magnitude >= 3.5f) + (magnitude > 5.0f);
    return uint8_t(code | (float_bits(x) >> 28 & 8u));
}

// The low four bits of `code`.
DEVICE float from_e2m1(uint32_t code) {
    float magnitude = bits_float((code & 7u) << 22) * 0x1p126f;
    return bits_float(float_bits(magnitude) | (code & 8u) << 28);
}

}  // namespace ptx
}  // namespace halfbyte
