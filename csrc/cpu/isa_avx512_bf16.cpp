// AVX-512 with VNNI and bfloat16 dot products.
#include "isas.h"

#if defined(__x86_64__)
TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,fma")
#include "kernel_table.h"
#include "wide_vnni.h"

namespace halfbyte {
namespace {

struct Avx512Bf16 : WideVnni {
    static constexpr bool kBf16Dot = true;

    ALWAYS_INLINE static Floats dot_bf16(Floats sum, int32_t a, Ints b) {
        return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(a), (__m512bh)b);
    }

    // As the plain rounding, but for denormals, which become zero.
    ALWAYS_INLINE static Halves to_bf16(Floats value) { return (Halves)_mm512_cvtneps_pbh((__m512)value); }
};

}  // namespace
}  // namespace halfbyte
TARGET_END

namespace halfbyte {
namespace {

bool supported() { return has_avx512_vnni() && __builtin_cpu_supports("avx512bf16"); }

}  // namespace

const Kernels kAvx512Bf16 = kernels_of<Avx512Bf16>("avx512_bf16", supported);

}  // namespace halfbyte
#endif
