// Two 16-bit numbers in one word: arithmetic, and the bit operations that bring them there.
#pragma once

#include "numbers.h"

namespace halfbyte::ptx {

// a * b + c in both halves, rounded to nearest even. T: Half or Bfloat. The host twin rounds through float32, so both give
// the same bits for certain only where the result is exact in T, as it is for decoded weights.
template <class T>
DEVICE uint32_t fma2(uint32_t a, uint32_t b, uint32_t c);

#ifdef HALFBYTE_SIMT
template <class T>
DEVICE uint32_t fma2(uint32_t a, uint32_t b, uint32_t c) {
    float x[2], y[2], z[2];
    unpack2<T>(a, x[0], x[1]);
    unpack2<T>(b, y[0], y[1]);
    unpack2<T>(c, z[0], z[1]);
    return pack2<T>(fma(x[0], y[0], z[0]), fma(x[1], y[1], z[1]));
}
#else
template <>
DEVICE uint32_t fma2<Half>(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t result;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
    return result;
}
template <>
DEVICE uint32_t fma2<Bfloat>(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t result;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
    return result;
}
#endif

// (a & mask) ^ flip in one instruction, which the compiler splits when it knows both constants.
DEVICE uint32_t and_xor(uint32_t a, uint32_t mask, uint32_t flip) {
#ifdef HALFBYTE_SIMT
    return (a & mask) ^ flip;
#else
    uint32_t result;
    asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(result) : "r"(a), "r"(mask), "r"(flip));
    return result;
#endif
}

// The low halves of two words, or their high halves; that of `low` in the low half.
DEVICE uint32_t low_halves(uint32_t low, uint32_t high) {
#ifdef HALFBYTE_SIMT
    return (low & 0xffffu) | high << 16;
#else
    return __byte_perm(low, high, 0x5410);
#endif
}

DEVICE uint32_t high_halves(uint32_t low, uint32_t high) {
#ifdef HALFBYTE_SIMT
    return low >> 16 | (high & 0xffff0000u);
#else
    return __byte_perm(low, high, 0x7632);
#endif
}

// The lowest bytes of four words, that of `a` lowest.
DEVICE uint32_t low_bytes(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
#ifdef HALFBYTE_SIMT
    return (a & 0xffu) | (b & 0xffu) << 8 | (c & 0xffu) << 16 | d << 24;
#else
    return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
#endif
}

}  // namespace halfbyte::ptx
