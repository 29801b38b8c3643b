// AVX2 with the 256-bit VNNI of CPUs that have no AVX-512.
#include "isas.h"

#if defined(__x86_64__)
TARGET_BEGIN("avx2,fma,avxvnni")
#include "kernel_table.h"
#include "narrow_avx.h"

namespace halfbyte {
namespace {

struct AvxVnni : NarrowAvx {
    using Code = uint8_t;
    static constexpr int kCodesPerStep = 4, kCodeOffset = 128;

    ALWAYS_INLINE static Ints load_codes(const uint8_t* codes) { return load_vector<Ints>(codes); }

    ALWAYS_INLINE static Ints dot(Ints sum, int32_t a, Ints b) {
        return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sum, _mm256_set1_epi32(a), (__m256i)b);
    }
};

}  // namespace
}  // namespace halfbyte
TARGET_END

namespace halfbyte {
namespace {

bool supported() { return has_avx2() && __builtin_cpu_supports("avxvnni"); }

}  // namespace

const Kernels kAvxVnni = kernels_of<AvxVnni>("avx_vnni", supported);

}  // namespace halfbyte
#endif
