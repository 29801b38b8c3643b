// What a block knows of its columns: the reciprocals of the smooth factors, as exact as quotients need them.
#pragma once

#include "quantize_values.h"

namespace halfbyte {

constexpr int kChunk = 8;  // columns of a thread: 16 bytes of x

// 1 / divisor as a float towards zero and what is left of it. By them a quotient is a product and a fma: a number within 2^-45 of
// it, rounded once. See exact_smooth() and exact_scale(). As `rest` has the divisor's sign, a zero keeps its own.
struct ReciprocalPair {
    float most, rest;

    DEVICE explicit ReciprocalPair(float divisor) : most(ptx::reciprocal(divisor)) {
        if (ptx::fma(most, divisor, -1.0f) > 0) most = ptx::bits_float(ptx::float_bits(most) - 1);
        rest = ptx::fma(-most, divisor, 1.0f) * most;
    }
};

DEVICE float quotient_by_pair(float x, float most, float rest) { return ptx::fma(x, most, x * rest); }

// Whether quotients by smooth are correctly rounded, as long as they are in the range of exact_peak(): smooth has at most 11
// bits, so every quotient is further than 2^-37 of itself from where rounding turns.
DEVICE bool exact_smooth(float smooth) {
    const float magnitude = ptx::bits_float(ptx::float_bits(smooth) & 0x7fffffffu);
    return magnitude >= 0x1p-60f && magnitude <= 0x1p60f;
}

// Whether all quotients of a row with this peak are exact, or so small beside it that their code is 0.
DEVICE bool exact_peak(uint32_t peak) {
    constexpr uint32_t kLowest = 0x21800000, kHighest = 0x5d800000;  // 2^-60 and 2^60
    return peak == 0 || peak - kLowest <= kHighest - kLowest;
}

// Whether quotients by the scale give the codes of correctly rounded ones. A code turns at a number of at most 8 bits, so
// rounding turns next to it at a 25-bit integer M that is +-1 modulo 2^17. With S, the scale's 24 bits, and the value's bits
// shifted far enough, M S misses the latter by at least D, how far S is from a multiple of 2^17 (by 2^17 where it is one): by
// D 2^-49 of the quotient, which is known within 2^-45.
DEVICE bool exact_scale(float scale) {
    const uint32_t above = ptx::float_bits(scale) % (1u << 17), below = (1u << 17) - above;
    return above == 0 || (above > 16 && below > 16);
}

// Of all boxes of a block, so that the threads of a box read them in one piece: float [boxes][4][8 chunks][4].
struct SharedReciprocals {
    float* shared;

    DEVICE void store(int column, const ReciprocalPair& pair) const {
        float* place = shared + column / 64 * 128 + column % kChunk / 4 * 32 + column % 64 / kChunk * 4 + column % 4;
        ptx::store_shared(place, pair.most);
        ptx::store_shared(place + 64, pair.rest);
    }
};

// Those of a thread's eight columns.
struct ChunkReciprocals {
    float most[kChunk], rest[kChunk];

    DEVICE ChunkReciprocals(const SharedReciprocals& reciprocals, int box, int chunk) {
        UNROLL
        for (int part = 0; part < 4; ++part) {
            uint32_t words[4];
            split(ptx::load_shared<Words4>(reciprocals.shared + box * 128 + part * 32 + chunk * 4), words);
            UNROLL
            for (int i = 0; i < 4; ++i) (part < 2 ? most : rest)[part % 2 * 4 + i] = ptx::bits_float(words[i]);
        }
    }

    // values = x / smooth.
    template <class T>
    DEVICE void apply(const Words4& x, float (&values)[kChunk]) const {
        uint32_t words[4];
        split(x, words);
        UNROLL
        for (int i = 0; i < 4; ++i) ptx::unpack2<T>(words[i], values[2 * i], values[2 * i + 1]);
        UNROLL
        for (int i = 0; i < kChunk; ++i) values[i] = quotient_by_pair(values[i], most[i], rest[i]);
    }
};

}  // namespace halfbyte
