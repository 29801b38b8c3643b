// The host twins of the matrix instructions: the lanes' fragments are gathered, multiplied, and the sums handed back.
#pragma once

#include <cstdint>

#include "machine.h"

namespace halfbyte::simt {

// One lane's registers. The lanes' a, taken together, are 16 rows of 8 words; b is 8 columns of 8 words.
template <class Sum>
struct MmaLane {
    Sum* d;
    const uint32_t *a, *b;
    uint32_t sfa, sfb;
};

void multiply_s4(MmaLane<int>* const* lanes);
void multiply_u4s4(MmaLane<int>* const* lanes);
void multiply_s8(MmaLane<int>* const* lanes);
void multiply_e4m3(MmaLane<float>* const* lanes);
void multiply_half(MmaLane<float>* const* lanes);
void multiply_bfloat(MmaLane<float>* const* lanes);
void multiply_nvfp4(MmaLane<float>* const* lanes);

template <class Sum>
inline void mma(const char* operation, void (*multiply)(MmaLane<Sum>* const*), Sum (&d)[4], const uint32_t (&a)[4],
                const uint32_t (&b)[2], uint32_t sfa, uint32_t sfb, Site site) {
    MmaLane<Sum> lane{d, a, b, sfa, sfb};
    collective<MmaLane<Sum>>(operation, lane, multiply, site);
}

}  // namespace halfbyte::simt
