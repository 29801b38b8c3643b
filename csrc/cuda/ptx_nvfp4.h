// The block-scaled matrix instruction of GeForce 50 and its emulation elsewhere.
#pragma once

#include "ptx_mma.h"
#include "ptx_warp.h"

namespace halfbyte::ptx {

// Elsewhere the instruction is emulated; kernels with it are compiled for sm_90 too, to be checked there.
#if defined(__CUDA_ARCH__) && !defined(HAS_BLOCK_SCALED_MMA) && __CUDA_ARCH__ != 900
constexpr bool kHasNvfp4 = false;
#else
constexpr bool kHasNvfp4 = true;
#endif

// E2M1 codes 2 pair and 2 pair + 1 of a word, times byte `block` of the word of scales.
DEVICE uint32_t scaled_pair(uint32_t codes, int pair, uint32_t scales, int block) {
    float scale = from_e4m3(uint8_t(scales >> 8 * block));
    return pack2<Half>(from_e2m1(codes >> 8 * pair) * scale, from_e2m1(codes >> (8 * pair + 4)) * scale);
}

// mma_nvfp4 by four f16 products. E2M1 times E4M3 has 6 significant bits and lies in 2^-10..2688, so it is exact in f16.
// Which K meets which does not matter as long as A and B agree, so product `pair` takes that pair of codes of every word.
DEVICE void emulated_mma_nvfp4(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], uint32_t sfa, uint32_t sfb,
                               int thread_a = 0, int thread_b = 0) {
    int lane = threadIdx.x % 32;
    int first_of_four = lane & ~3;
    uint32_t scales_low_row = shuffle(sfa, first_of_four + 2 * thread_a);
    uint32_t scales_high_row = shuffle(sfa, first_of_four + 2 * thread_a + 1);
    uint32_t scales_column = shuffle(sfb, first_of_four + thread_b);
    // Words q hold K in [8q, 8q + 8), words q + 4 that plus 32.
    int near = lane % 4 / 2;
    int far = near + 2;
    // Unrolled, it would keep the converted A of several instructions in registers, and spill.
    ROLLED
    for (int pair = 0; pair < 4; ++pair) {
        uint32_t half_a[4] = {scaled_pair(a[0], pair, scales_low_row, near), scaled_pair(a[1], pair, scales_high_row, near),
                              scaled_pair(a[2], pair, scales_low_row, far), scaled_pair(a[3], pair, scales_high_row, far)};
        uint32_t half_b[2] = {scaled_pair(b[0], pair, scales_column, near), scaled_pair(b[1], pair, scales_column, far)};
        mma_16bit<Half>(d, half_a, half_b);
    }
}

// m16n8k64 of E2M1 codes with one unsigned E4M3 scale per 16 of K (PTX ISA 9.7.14.3, mxf4nvf4 4X, byte ids 0).
// sfa: the four scales of row g from lane 4g + 2 thread_a, of row g + 8 from the lane after it. sfb: those of column g from lane
// 4g + thread_b. Byte b of a word scales K in [16b, 16b + 16). thread_a, thread_b: constants once loops are unrolled.
// Emulated by mma_16bit<Half> on devices without the instruction.
DEVICE void mma_nvfp4(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], uint32_t sfa, uint32_t sfb,
                      int thread_a = 0, int thread_b = 0 SITE) {
#if defined(HALFBYTE_SIMT)
    simt::mma("mma_nvfp4", simt::multiply_nvfp4, {d, a, b, sfa, sfb, thread_a, thread_b}, site);
#elif defined(HAS_BLOCK_SCALED_MMA)
    asm volatile(
        "mma.sync.aligned.kind::mxf4nvf4.block_scale.scale_vec::4X.m16n8k64.row.col.f32.e2m1.e2m1.f32.ue4m3 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3}, {%10}, {0, %12}, {%11}, {0, %13};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(sfa), "r"(sfb),
          "h"(uint16_t(thread_a)), "h"(uint16_t(thread_b)));
#else
    emulated_mma_nvfp4(d, a, b, sfa, sfb, thread_a, thread_b);
#endif
}

}  // namespace halfbyte::ptx
