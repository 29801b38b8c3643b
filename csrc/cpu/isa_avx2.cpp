// AVX2. Its product of bytes saturates, so codes are multiplied as 16-bit integers, which is exact.
#include "isas.h"

#if defined(__x86_64__)
TARGET_BEGIN("avx2,fma")
#include "kernel_table.h"
#include "narrow_avx.h"

namespace halfbyte {
namespace {

struct Avx2 : NarrowAvx {
    using Code = int16_t;
    static constexpr int kCodesPerStep = 2, kCodeOffset = 0;

    ALWAYS_INLINE static Ints load_codes(const uint8_t* codes) {
        return (Ints)_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
    }

    ALWAYS_INLINE static Ints dot(Ints sum, int32_t a, Ints b) {
        Ints next = sum + (Ints)_mm256_madd_epi16(_mm256_set1_epi32(a), (__m256i)b);
        // Keeps the compiler from gathering the products of several steps before it adds them: there are no registers for that.
        asm("" : "+x"(next));
        return next;
    }
};

}  // namespace
}  // namespace halfbyte
TARGET_END

namespace halfbyte {

const Kernels kAvx2 = kernels_of<Avx2>("avx2", has_avx2);

}  // namespace halfbyte
#endif
