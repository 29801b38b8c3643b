// The inner loops: one tile of kRows tokens times one panel of kColumns output channels, all of its sums in registers.
#pragma once

#include "packed_weight.h"
#include "vectors.h"

namespace halfbyte {
namespace {

// Rows of a tile lie interleaved in chunks of 64 bytes, so that a row is a constant distance from the next.
constexpr int kChunk = 64;
constexpr int kStepsPerChunk = kChunk / 4;

struct Tile {
    const uint8_t* act;
    const uint8_t* weight;
    int64_t steps;
    const int32_t* corrections;
    const float* wscales;
    const float* ascales;
    const float* bias;
    const uint8_t* low_rank_act;
    const uint8_t* proj_up;
    int64_t low_steps;
    uint8_t* out;
    int64_t out_stride;
    bool out_bf16;
    int rows, columns;
};

// sum + a * b for one step of the branch: pairs of bfloat16, or single float32.
template <class Isa, bool kPairs>
ALWAYS_INLINE typename Isa::Floats branch_step(typename Isa::Floats sum, const uint8_t* a, const uint8_t* b) {
    if constexpr (kPairs) {
        return Isa::dot_bf16(sum, load_dword(a), load_vector<typename Isa::Ints>(b));
    } else {
        return Isa::multiply_add(load_float(a), load_vector<typename Isa::Floats>(b), sum);
    }
}

template <class Isa>
ALWAYS_INLINE void store_row(const typename Isa::Floats (&values)[Isa::kVectors], uint8_t* out, bool out_bf16, int columns) {
    constexpr int kColumns = Layout<Isa>::kColumns, kLanes = Isa::Vector::kLanes;
    const int element = out_bf16 ? 2 : 4;
    uint8_t last[kColumns * 4];
    uint8_t* row = columns == kColumns ? out : last;
#pragma GCC unroll 8
    for (int v = 0; v < Isa::kVectors; ++v) {
        if (out_bf16) {
            store_vector(row + v * kLanes * 2, Isa::to_bf16(values[v]));
        } else {
            store_vector(row + v * kLanes * 4, values[v]);
        }
    }
    if (row == last) __builtin_memcpy(out, last, size_t(columns * element));
}

template <class Isa, bool kPairs, int kRows>
void product_tile(const Tile& tile) {
    using Ints = typename Isa::Ints;
    using Floats = typename Isa::Floats;
    constexpr int kVectors = Isa::kVectors, kLanes = Isa::Vector::kLanes, kColumns = Layout<Isa>::kColumns;
    Ints sums[kRows][kVectors];
#pragma GCC unroll 16
    for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sums[row][v] = load_vector<Ints>(tile.corrections + v * kLanes);

    const uint8_t *act = tile.act, *weight = tile.weight;
    for (int64_t left = tile.steps; left > 0; left -= kStepsPerChunk) {
        const uint8_t* end = act + (left < kStepsPerChunk ? left * 4 : kChunk);
        const uint8_t* next = act + Isa::kRows * kChunk;
        for (; act < end; act += 4 * kStepsTogether) {
#pragma GCC unroll 4
            for (int step = 0; step < kStepsTogether; ++step) {
                Ints codes[kVectors];
#pragma GCC unroll 8
                for (int v = 0; v < kVectors; ++v) codes[v] = Isa::load_codes(weight + v * kLanes * Isa::kCodesPerStep);
                weight += kColumns * Isa::kCodesPerStep;
#pragma GCC unroll 16
                for (int row = 0; row < kRows; ++row) {
                    const int32_t a = load_dword(act + row * kChunk + step * 4);
#pragma GCC unroll 8
                    for (int v = 0; v < kVectors; ++v) sums[row][v] = Isa::dot(sums[row][v], a, codes[v]);
                }
            }
        }
        act = next;
    }

    Floats y[kRows][kVectors];
#pragma GCC unroll 16
    for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
            // The weight's scale first: that of a row with infinities is so large that the other way round would overflow.
            const Floats product = __builtin_convertvector(sums[row][v], Floats) * load_vector<Floats>(tile.wscales + v * kLanes);
            const Floats scaled = product * tile.ascales[row];
            y[row][v] = tile.bias ? scaled + load_vector<Floats>(tile.bias + v * kLanes) : scaled;
        }

    const uint8_t *low = tile.low_rank_act, *up = tile.proj_up;
    for (int64_t left = tile.low_steps; left > 0; left -= kStepsPerChunk, low += Isa::kRows * kChunk) {
        const uint8_t* end = low + (left < kStepsPerChunk ? left * 4 : kChunk);
        for (const uint8_t* step = low; step < end; step += 4, up += kColumns * 4) {
#pragma GCC unroll 16
            for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 8
                for (int v = 0; v < kVectors; ++v)
                    y[row][v] = branch_step<Isa, kPairs>(y[row][v], step + row * kChunk, up + v * kLanes * 4);
        }
    }

    // Unrolled like the rest: an index known only at run time would keep the sums in memory.
#pragma GCC unroll 16
    for (int row = 0; row < kRows; ++row) {
        if (row == tile.rows) return;
        store_row<Isa>(y[row], tile.out + row * tile.out_stride, tile.out_bf16, tile.columns);
    }
}

// sums [kRows, stride], kColumns of each: rows of x times one panel of proj_down.
template <class Isa, bool kPairs, int kRows>
void down_tile(const uint8_t* const (&rows)[kRows], const uint8_t* down, int64_t steps, float* sums, int64_t stride) {
    using Floats = typename Isa::Floats;
    constexpr int kVectors = Isa::kVectors, kLanes = Isa::Vector::kLanes, kColumns = Layout<Isa>::kColumns;
    Floats y[kRows][kVectors] = {};
    for (int64_t step = 0; step < steps; ++step, down += kColumns * 4) {
#pragma GCC unroll 16
        for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 8
            for (int v = 0; v < kVectors; ++v) 
                y[row][v] = branch_step<Isa, kPairs>(y[row][v], rows[row] + step * 4, down + v * kLanes * 4);
    }
#pragma GCC unroll 16
    for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) store_vector(sums + row * stride + v * kLanes, y[row][v]);
}

}  // namespace
}  // namespace halfbyte
