// Matrix instructions of one warp: D (16x8) += A (16xK, row-major) B (Kx8, column-major).
// With g = lane / 4, q = lane % 4 and 4-byte words of K: a[0] row g word q, a[1] row g + 8, a[2] and a[3] the same rows at
// word q + 4; b[0] column g word q, b[1] word q + 4; d[0], d[1] row g columns 2q, 2q + 1; d[2], d[3] row g + 8.
// PTX ISA 9.7.14.5. The host sums exactly (integers) or in double with one rounding at the end (floats).
#pragma once

#include "numbers.h"

#ifdef HALFBYTE_SIMT
#include "../simt/mma.h"
#endif

namespace halfbyte::ptx {

#ifdef HALFBYTE_SIMT
#define MMA_ON_HOST(name, multiply) simt::mma(name, simt::multiply, {d, a, b}, site)
#else
#define MMA_ON_DEVICE(instruction, letter)                                                                         \
    asm volatile(instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                    \
                 : "+" letter(d[0]), "+" letter(d[1]), "+" letter(d[2]), "+" letter(d[3])                           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#endif

DEVICE void mma_s4(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] SITE) {
#ifdef HALFBYTE_SIMT
    MMA_ON_HOST("mma_s4", multiply_s4);
#else
    MMA_ON_DEVICE("mma.sync.aligned.m16n8k64.row.col.s32.s4.s4.s32", "r");
#endif
}

DEVICE void mma_u4s4(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] SITE) {
#ifdef HALFBYTE_SIMT
    MMA_ON_HOST("mma_u4s4", multiply_u4s4);
#else
    MMA_ON_DEVICE("mma.sync.aligned.m16n8k64.row.col.s32.u4.s4.s32", "r");
#endif
}

DEVICE void mma_s8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] SITE) {
#ifdef HALFBYTE_SIMT
    MMA_ON_HOST("mma_s8", multiply_s8);
#else
    MMA_ON_DEVICE("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32", "r");
#endif
}

// m16n8k16, T: Half or Bfloat, accumulated in float32.
template <class T>
DEVICE void mma_16bit(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] SITE);

#ifdef HALFBYTE_SIMT
template <>
DEVICE void mma_16bit<Half>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], simt::Site site) {
    MMA_ON_HOST("mma_16bit<Half>", multiply_half);
}
template <>
DEVICE void mma_16bit<Bfloat>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], simt::Site site) {
    MMA_ON_HOST("mma_16bit<Bfloat>", multiply_bfloat);
}
#else
template <>
DEVICE void mma_16bit<Half>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    MMA_ON_DEVICE("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", "f");
}
template <>
DEVICE void mma_16bit<Bfloat>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    MMA_ON_DEVICE("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", "f");
}
#endif

// sm_89 and sm_120 have the instruction. sm_90 emulates it, for checks: the assembler's own emulation of it there spills.
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ < 890 || (__CUDA_ARCH__ > 900 && __CUDA_ARCH__ < 1200))
constexpr bool kHasE4m3 = false;
#else
constexpr bool kHasE4m3 = true;
#endif

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
// Codes 2 pair and 2 pair + 1 of a word; exact in f16.
DEVICE uint32_t e4m3_pair(uint32_t codes, int pair) {
    uint32_t halves;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(uint16_t(codes >> 16 * pair)));
    return halves;
}
#endif

DEVICE void mma_e4m3(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] SITE) {
#if defined(HALFBYTE_SIMT)
    MMA_ON_HOST("mma_e4m3", multiply_e4m3);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
    ROLLED
    for (int pair = 0; pair < 2; ++pair) {
        const uint32_t half_a[4] = {e4m3_pair(a[0], pair), e4m3_pair(a[1], pair), e4m3_pair(a[2], pair), e4m3_pair(a[3], pair)};
        const uint32_t half_b[2] = {e4m3_pair(b[0], pair), e4m3_pair(b[1], pair)};
        mma_16bit<Half>(d, half_a, half_b);
    }
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    MMA_ON_DEVICE("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32", "f");
#else
    __trap();
#endif
}

// The same product through the block-scaled path, which GeForce 50 runs at twice the rate; mma_e4m3 elsewhere.
DEVICE void mma_e4m3_unit_scaled(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] SITE) {
#if defined(HALFBYTE_SIMT)
    MMA_ON_HOST("mma_e4m3_unit_scaled", multiply_e4m3);
#elif defined(HAS_BLOCK_SCALED_MMA)
    const uint32_t ones = 0x7f7f7f7fu;
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.kind::mxf8f6f4.block_scale.scale_vec::1X.f32.e4m3.e4m3.f32.ue8m0 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3}, {%10}, {0, 0}, {%10}, {0, 0};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(ones));
#else
    mma_e4m3(d, a, b);
#endif
}

#undef MMA_ON_HOST
#undef MMA_ON_DEVICE

}  // namespace halfbyte::ptx
