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
    // Block scales, and which lanes of each four supply them: pair thread_a, lane thread_b.
    uint32_t sfa = 0, sfb = 0;
    int thread_a = 0, thread_b = 0;
};

void multiply_s4(MmaLane<int>* const* lanes);
void multiply_u4s4(MmaLane<int>* const* lanes);
void multiply_s8(MmaLane<int>* const* lanes);
void multiply_e4m3(MmaLane<float>* const* lanes);
void multiply_half(MmaLane<float>* const* lanes);
void multiply_bfloat(MmaLane<float>* const* lanes);
void multiply_nvfp4(MmaLane<float>* const* lanes);

template <class Sum>
inline void mma(const char* operation, void (*multiply)(MmaLane<Sum>* const*), MmaLane<Sum> lane, Site site) {
    collective<MmaLane<Sum>>(operation, lane, multiply, site);
}

}  // namespace halfbyte::simt
