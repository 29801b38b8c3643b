#include "mma.h"

#include <cstring>

#include "../cuda/numbers.h"
#include "multiversion.h"

// The loops below are written to be vectorized, which -O2 does only in part.
#pragma GCC optimize("O3")

namespace halfbyte::simt {
namespace {

constexpr int kRows = 16, kColumns = 8, kWords = 8;

struct Fragments {
    alignas(64) uint32_t a[kRows][kWords];
    alignas(64) uint32_t b[kColumns][kWords];
};

template <class Sum>
ALWAYS_INLINE void gather(MmaLane<Sum>* const* lanes, Fragments& fragments) {
    ++machine.work.products;
    for (int i = 0; i < 32; ++i) {
        int g = i / 4, q = i % 4;
        const MmaLane<Sum>& lane = *lanes[i];
        fragments.a[g][q] = lane.a[0];
        fragments.a[g + 8][q] = lane.a[1];
        fragments.a[g][q + 4] = lane.a[2];
        fragments.a[g + 8][q + 4] = lane.a[3];
        fragments.b[g][q] = lane.b[0];
        fragments.b[g][q + 4] = lane.b[1];
    }
}

template <class Sum, class Product>
ALWAYS_INLINE void add(MmaLane<Sum>* const* lanes, const Product (&c)[kRows][kColumns]) {
    for (int i = 0; i < 32; ++i) {
        int g = i / 4, q = i % 4;
        Sum* d = lanes[i]->d;
        d[0] = Sum(d[0] + c[g][2 * q]);
        d[1] = Sum(d[1] + c[g][2 * q + 1]);
        d[2] = Sum(d[2] + c[g + 8][2 * q]);
        d[3] = Sum(d[3] + c[g + 8][2 * q + 1]);
    }
}

// Low and high nibbles apart: the order of K does not matter as long as it is the same on both sides.
template <bool kSigned>
ALWAYS_INLINE void unpack_nibbles(const uint32_t* words, int count, int16_t* values) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(words);
    for (int i = 0; i < 4 * count; ++i) {
        values[i] = kSigned ? int8_t(bytes[i] << 4) >> 4 : bytes[i] & 15;
        values[4 * count + i] = kSigned ? int8_t(bytes[i]) >> 4 : bytes[i] >> 4;
    }
}

template <int K>
ALWAYS_INLINE void multiply_integers(const int16_t (&a)[kRows][K], const int16_t (&b)[kColumns][K], int (&c)[kRows][kColumns]) {
    for (int row = 0; row < kRows; ++row)
        for (int column = 0; column < kColumns; ++column) {
            int sum = 0;
            for (int k = 0; k < K; ++k) sum += a[row][k] * b[column][k];
            c[row][column] = sum;
        }
}

template <bool kSignedA>
ALWAYS_INLINE void multiply_nibbles(MmaLane<int>* const* lanes) {
    Fragments fragments;
    gather(lanes, fragments);
    alignas(64) int16_t a[kRows][64];
    alignas(64) int16_t b[kColumns][64];
    for (int row = 0; row < kRows; ++row) unpack_nibbles<kSignedA>(fragments.a[row], kWords, a[row]);
    for (int column = 0; column < kColumns; ++column) unpack_nibbles<true>(fragments.b[column], kWords, b[column]);
    int c[kRows][kColumns];
    multiply_integers<64>(a, b, c);
    add(lanes, c);
}

// A double holds each product exactly and their sum nearly so; the one rounding is that of the result.
template <int K>
ALWAYS_INLINE void multiply_floats(MmaLane<float>* const* lanes, const float (&a)[kRows][K], const float (&b)[kColumns][K]) {
    double b_rows[K][kColumns];
    for (int k = 0; k < K; ++k)
        for (int column = 0; column < kColumns; ++column) b_rows[k][column] = b[column][k];
    double c[kRows][kColumns] = {};
    for (int row = 0; row < kRows; ++row)
        for (int k = 0; k < K; ++k)
            for (int column = 0; column < kColumns; ++column) c[row][column] += double(a[row][k]) * b_rows[k][column];
    add(lanes, c);
}

template <class T>
ALWAYS_INLINE void widen(const uint32_t* words, float* values) {
    for (int i = 0; i < kWords; ++i) ptx::unpack2<T>(words[i], values[2 * i], values[2 * i + 1]);
}

template <class T>
ALWAYS_INLINE void multiply_16bit(MmaLane<float>* const* lanes) {
    Fragments fragments;
    gather(lanes, fragments);
    float a[kRows][16], b[kColumns][16];
    for (int row = 0; row < kRows; ++row) widen<T>(fragments.a[row], a[row]);
    for (int column = 0; column < kColumns; ++column) widen<T>(fragments.b[column], b[column]);
    multiply_floats<16>(lanes, a, b);
}

ALWAYS_INLINE void widen_e4m3(const uint32_t* words, float* values) {
    const auto* codes = reinterpret_cast<const uint8_t*>(words);
    for (int i = 0; i < 4 * kWords; ++i) values[i] = ptx::from_e4m3(codes[i]);
}

ALWAYS_INLINE void widen_e2m1(const uint32_t* words, uint32_t scales, float* values) {
    for (int i = 0; i < 8 * kWords; ++i)
        values[i] = ptx::from_e2m1(words[i / 8] >> 4 * (i % 8)) * ptx::from_e4m3(scales >> 8 * (i / 16) & 0x7f);
}

}  // namespace

MULTIVERSION void multiply_s4(MmaLane<int>* const* lanes) { multiply_nibbles<true>(lanes); }

MULTIVERSION void multiply_u4s4(MmaLane<int>* const* lanes) { multiply_nibbles<false>(lanes); }

MULTIVERSION void multiply_s8(MmaLane<int>* const* lanes) {
    Fragments fragments;
    gather(lanes, fragments);
    int16_t a[kRows][32], b[kColumns][32];
    for (int row = 0; row < kRows; ++row)
        for (int k = 0; k < 32; ++k) a[row][k] = reinterpret_cast<const int8_t*>(fragments.a[row])[k];
    for (int column = 0; column < kColumns; ++column)
        for (int k = 0; k < 32; ++k) b[column][k] = reinterpret_cast<const int8_t*>(fragments.b[column])[k];
    int c[kRows][kColumns];
    multiply_integers<32>(a, b, c);
    add(lanes, c);
}

MULTIVERSION void multiply_e4m3(MmaLane<float>* const* lanes) {
    Fragments fragments;
    gather(lanes, fragments);
    float a[kRows][32], b[kColumns][32];
    for (int row = 0; row < kRows; ++row) widen_e4m3(fragments.a[row], a[row]);
    for (int column = 0; column < kColumns; ++column) widen_e4m3(fragments.b[column], b[column]);
    multiply_floats<32>(lanes, a, b);
}

MULTIVERSION void multiply_half(MmaLane<float>* const* lanes) { multiply_16bit<Half>(lanes); }

MULTIVERSION void multiply_bfloat(MmaLane<float>* const* lanes) { multiply_16bit<Bfloat>(lanes); }

MULTIVERSION void multiply_nvfp4(MmaLane<float>* const* lanes) {
    Fragments fragments;
    gather(lanes, fragments);
    float a[kRows][64], b[kColumns][64];
    for (int row = 0; row < kRows; ++row) widen_e2m1(fragments.a[row], lanes[4 * (row % 8) + 2 * lanes[0]->thread_a + row / 8]->sfa, a[row]);
    for (int column = 0; column < kColumns; ++column) widen_e2m1(fragments.b[column], lanes[4 * column + lanes[0]->thread_b]->sfb, b[column]);
    multiply_floats<64>(lanes, a, b);
}

}  // namespace halfbyte::simt
