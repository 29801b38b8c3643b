// Any processor.
#include "isas.h"
#include "kernel_table.h"

namespace halfbyte {
namespace {

struct Generic : Vectors<16> {
    using Code = int16_t;
    static constexpr int kRows = 3, kVectors = 2, kDownRows = 3;
    static constexpr int kCodesPerStep = 2, kCodeOffset = 0;
    static constexpr bool kBf16Dot = false, kFma = false;

    typedef int16_t Shorts __attribute__((vector_size(16)));
    typedef int8_t Bytes __attribute__((vector_size(8)));

    ALWAYS_INLINE static Ints load_codes(const uint8_t* codes) {
        return (Ints) __builtin_convertvector(load_vector<Bytes>(codes), Shorts);
    }

    // Pairs of 16-bit codes in 32-bit lanes, of which shifting takes out either one with its sign.
    ALWAYS_INLINE static Ints dot(Ints sum, int32_t a, Ints b) {
        return sum + int16_t(a) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
    }

    ALWAYS_INLINE static Floats multiply_add(float a, Floats b, Floats sum) { return a * b + sum; }
};

bool everywhere() { return true; }

}  // namespace

const Kernels kGeneric = kernels_of<Generic>("generic", everywhere);

}  // namespace halfbyte
