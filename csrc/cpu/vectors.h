// Vectors of a given number of bytes in GCC's and clang's extension: one source for every register width.
#pragma once

#include "isas.h"

namespace halfbyte {
namespace {

// Round to nearest even; NaN becomes the quiet NaN that PyTorch writes.
template <class Vectors>
ALWAYS_INLINE typename Vectors::Halves round_to_bf16(typename Vectors::Floats value) {
    using Words = typename Vectors::Words;
    const Words bits = (Words)value, number = (Words)(value == value);
    const Words rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    return __builtin_convertvector((rounded & number) | (0x7FC0 & ~number), typename Vectors::Halves);
}

template <int kBytes>
struct Vectors {
    typedef float Floats __attribute__((vector_size(kBytes)));
    typedef int32_t Ints __attribute__((vector_size(kBytes)));
    typedef uint32_t Words __attribute__((vector_size(kBytes)));
    typedef uint16_t Halves __attribute__((vector_size(kBytes / 2)));
    static constexpr int kLanes = kBytes / 4;
    using Vector = Vectors;

    ALWAYS_INLINE static Halves to_bf16(Floats value) { return round_to_bf16<Vectors>(value); }
};

template <class V>
ALWAYS_INLINE V load_vector(const void* address) {
    V value;
    __builtin_memcpy(&value, address, sizeof value);
    return value;
}

template <class V>
ALWAYS_INLINE void store_vector(void* address, V value) {
    __builtin_memcpy(address, &value, sizeof value);
}

ALWAYS_INLINE int32_t load_dword(const void* address) {
    int32_t value;
    __builtin_memcpy(&value, address, sizeof value);
    return value;
}

ALWAYS_INLINE float load_float(const void* address) {
    float value;
    __builtin_memcpy(&value, address, sizeof value);
    return value;
}

}  // namespace
}  // namespace halfbyte
