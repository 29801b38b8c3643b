// Pairs of a head's elements for the rotary embedding: eight pairs in 16-byte vectors, or one at a time.
#pragma once

#include "runs.h"

namespace halfbyte {

constexpr int kPairs = kRun;

struct Pairs {
    float first[kPairs], second[kPairs];
};

// Where pairs [8 unit, 8 unit + 8) of a head of `width` elements are: two runs, side by side or half a head apart.
struct PairPlace {
    int first, second;

    DEVICE PairPlace(int unit, int width, bool half)
        : first(half ? unit * kPairs : 2 * unit * kPairs), second(first + (half ? width / 2 : kPairs)) {}
};

DEVICE Pairs load_pairs(const Floats& tensor, int64_t head, const PairPlace& place, bool half) {
    const RunBits first = load_run(tensor, head + place.first), second = load_run(tensor, head + place.second);
    float low[kRun], high[kRun];
    unpack(first, tensor.dtype, low);
    unpack(second, tensor.dtype, high);
    Pairs pairs;
    UNROLL
    for (int i = 0; i < kPairs; ++i) {
        const int at = 2 * i % kRun;
        pairs.first[i] = half ? low[i] : (i < kRun / 2 ? low[at] : high[at]);
        pairs.second[i] = half ? high[i] : (i < kRun / 2 ? low[at + 1] : high[at + 1]);
    }
    return pairs;
}

DEVICE void store_pairs(void* base, int64_t head, const PairPlace& place, Dtype dtype, const Pairs& pairs, bool half) {
    float low[kRun], high[kRun];
    UNROLL
    for (int i = 0; i < kRun; ++i) {
        const int pair = i / 2;
        low[i] = half ? pairs.first[i] : (i % 2 ? pairs.second[pair] : pairs.first[pair]);
        high[i] = half ? pairs.second[i] : (i % 2 ? pairs.second[pair + kRun / 2] : pairs.first[pair + kRun / 2]);
    }
    store_run(base, head + place.first, dtype, low);
    store_run(base, head + place.second, dtype, high);
}

DEVICE float sum_of_squares(const Pairs& pairs) {
    float sum = 0.0f;
    UNROLL
    for (int i = 0; i < kPairs; ++i) {
        sum = ptx::fma(pairs.first[i], pairs.first[i], sum);
        sum = ptx::fma(pairs.second[i], pairs.second[i], sum);
    }
    return sum;
}

DEVICE void rotate(float& first, float& second, float cos, float sin) {
    const float real = first * cos - second * sin;
    second = second * cos + first * sin;
    first = real;
}

}  // namespace halfbyte
