// 16-bit scales of one group of 64 codes in every row and column of the tile, kept beside the codes of a stage.
#pragma once

#include "gemm_rows.h"

namespace halfbyte {

constexpr int kGroupBytes = 32, kGroupsPerStep = kStepBytes / kGroupBytes;
static_assert(kGroupsPerStep == kSlicesPerStep, "a slice is a group");

template <class Tile>
struct GroupScaleLayout {
    static constexpr int kActBytes = Tile::kBlockM * 2, kWeightBytes = Tile::kBlockN * 2;  // of one group
    static constexpr int kWeightOffset = kGroupsPerStep * kActBytes;
    static constexpr int kBytes = kWeightOffset + kGroupsPerStep * kWeightBytes;
    static constexpr int kActChunks = Tile::kBlockM / 8, kWeightChunks = Tile::kBlockN / 8;
};

// Eight neighbouring scales of one group of every step, copied by one thread.
template <class T>
struct ScaleChunk {
    const T* scales;
    size_t per_step;
    int groups_left;

    // scales [groups, stride]
    DEVICE ScaleChunk(const void* first, int groups, int stride, int group, int column, bool inside)
        : scales(static_cast<const T*>(first) + size_t(group) * stride + column),
          per_step(size_t(kGroupsPerStep) * stride),
          groups_left(inside ? groups - group : 0) {}

    DEVICE void copy(uint8_t* target) {
        ptx::cp_async_16(target, scales, groups_left > 0);
        scales += per_step;
        groups_left -= kGroupsPerStep;
    }
};

// Each of the first threads copies one chunk, of activations or of the weight.
template <class Tile, class T>
struct TokenScales {
    using Layout = GroupScaleLayout<Tile>;
    static constexpr int kActThreads = kGroupsPerStep * Layout::kActChunks;
    static constexpr int kThreads = kActThreads + kGroupsPerStep * Layout::kWeightChunks;
    static_assert(kThreads <= Tile::kThreads, "one chunk of scales a thread");

    ScaleChunk<T> chunk;

    DEVICE TokenScales(const GemmArguments& arguments, const Place<Tile>& place, const Columns<Tile>& columns, const TokenRows<Tile>&)
        : chunk(chunk_of(arguments, place, columns, int(threadIdx.x))) {}

    DEVICE static ScaleChunk<T> chunk_of(const GemmArguments& arguments, const Place<Tile>& place, const Columns<Tile>& columns,
                                         int thread) {
        const bool of_act = thread < kActThreads;
        const int of_weight = thread - kActThreads;
        const int chunk = of_act ? thread % Layout::kActChunks : of_weight % Layout::kWeightChunks;
        const int group = of_act ? thread / Layout::kActChunks : of_weight / Layout::kWeightChunks;
        const int first = of_act ? place.first_row() + 8 * chunk : columns.of(8 * chunk);
        const int stride = of_act ? arguments.padded_m : arguments.n;
        const bool inside = of_act ? first < arguments.padded_m : first >= 0;
        return {of_act ? arguments.ascales : arguments.wscales, arguments.row_bytes / kGroupBytes, stride, group, first, inside};
    }

    DEVICE void copy(uint8_t* scales) {
        if (int(threadIdx.x) < kThreads) chunk.copy(scales + threadIdx.x * 16);
    }
};

}  // namespace halfbyte
