// gemm_w4a16 for a few rows of x, where time goes into reading the weight. The weight's rows are the 16 rows of the matrix
// instruction and x its columns, so the tensor cores do the sums and a thread only decodes.
#pragma once

#include "w4a16_codes.h"

namespace halfbyte {

constexpr int kGemvWarps = 8;
constexpr int kGemvThreads = 32 * kGemvWarps;
constexpr int kGemvRows = 16;      // weight rows of one warp
constexpr int kGemvColumns = 4;    // rows of x in one column tile
constexpr int kGemvStep = 128;     // columns of K that a warp takes at once: 16 bytes of every row for each lane of a quad
constexpr int kGemvMaxRows = 8;

struct GemvArguments {
    W4A16Arguments product;
    int row_tiles;  // of the block; its other warps split K
};

// What a lane holds of one step: 32 codes of weight rows g and g + 8, and their scales as stored.
struct GemvStep {
    Words4 codes[2];
    uint32_t scales[2];
};

template <WeightFormat kFormat>
struct GemvWeight {
    const W4A16Arguments& product;
    const uint8_t* codes[2];  // of the lane's rows, from its place in the first step on
    int row[2], first_k;
    bool inside[2];
    bool whole_vectors = product.k % 32 == 0;

    DEVICE GemvWeight(const W4A16Arguments& product, int first_row, int quad) : product(product), first_k(quad * 32) {
        UNROLL
        for (int half = 0; half < 2; ++half) {
            row[half] = first_row + 8 * half;
            inside[half] = row[half] < product.n;
            codes[half] = product.qweight + (inside[half] ? (int64_t(row[half]) * product.k + first_k) / 2 : 0);
        }
    }

    DEVICE Words4 load_codes(const uint8_t* at, bool second_half) const {
        if (kFormat == WeightFormat::kInt4 || whole_vectors) return ptx::load_readonly(reinterpret_cast<const Words4*>(at));
        const auto* halves = reinterpret_cast<const Words2*>(at);
        const Words2 low = ptx::load_readonly(halves);
        const Words2 high = second_half ? ptx::load_readonly(halves + 1) : Words2{0, 0};
        return {low.x, low.y, high.x, high.y};
    }

    DEVICE uint32_t load_scales(int row, int k) const {
        if constexpr (kFormat == WeightFormat::kInt4) {
            const auto* scales = static_cast<const uint16_t*>(product.wscales.data);
            return ptx::load_readonly(scales + (unsigned(k) / kInt4Group * product.n + row));
        } else {
            const uint8_t* at = static_cast<const uint8_t*>(product.wscales.data) + (unsigned(k) / kNvfp4Group * product.n + row);
            const uint32_t low = ptx::load_readonly(at);
            return k + 16 < product.k ? low | uint32_t(ptx::load_readonly(at + product.n)) << 8 : low;
        }
    }

    // Zeros outside the weight, which add nothing.
    DEVICE GemvStep load(int step) const {
        const int k = step * kGemvStep + first_k;
        GemvStep loaded = {};
        UNROLL
        for (int half = 0; half < 2; ++half) {
            if (k >= product.k || !inside[half]) continue;
            loaded.codes[half] = load_codes(codes[half] + step * (kGemvStep / 2), k + 16 < product.k);
            loaded.scales[half] = load_scales(row[half], k);
        }
        return loaded;
    }
};

// Columns 0 to 3 of the instruction take the first half of a step and columns 4 to 7 the second, both of the same rows of x:
// each half is one int4 group, so every accumulator has one scale.
struct GemvActivation {
    const uint16_t* row;  // the lane's row of the first column tile, from its place in the first step on
    int rows_left, first_k, k;

    DEVICE GemvActivation(const W4A16Arguments& product, int group, int quad)
        : rows_left(product.m * product.parts - group % kGemvColumns), first_k(quad * 32), k(product.k) {
        const bool own_half = group / kGemvColumns == quad / 2;
        if (!own_half) rows_left = 0;
        row = product.x + (rows_left > 0 ? int64_t(group % kGemvColumns) * k + first_k : 0);
    }

    DEVICE Words4 load(int tile, int step, int word) const {
        // K is a multiple of 16, two words.
        const int first = step * kGemvStep + word / 2 * 16;
        if (tile * kGemvColumns >= rows_left || first_k + first >= k) return {0, 0, 0, 0};
        return ptx::load_readonly(reinterpret_cast<const Words4*>(row + (tile * kGemvColumns * k + first)) + word % 2);
    }
};

template <class T, WeightFormat kFormat, int kTiles>
DEVICE void multiply_step(float (&sum)[kTiles][4], const GemvStep& loaded, const GemvActivation& x, int step,
                          Dtype wscale_dtype) {
    float product[kTiles][4] = {};
    UNROLL
    for (int word = 0; word < 4; ++word) {
        uint32_t weights[2][4];
        UNROLL
        for (int half = 0; half < 2; ++half) {
            const Words4& codes = loaded.codes[half];
            const uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
            const uint32_t multiplier =
                kFormat == WeightFormat::kNvfp4 ? nvfp4_multiplier<T>(uint8_t(loaded.scales[half] >> (word / 2 * 8))) : 0;
            decode<T, kFormat>(words[word], multiplier, weights[half]);
        }
        UNROLL
        for (int tile = 0; tile < kTiles; ++tile) {
            uint32_t columns[4];
            pair_columns(x.load(tile, step, word), columns);
            UNROLL
            for (int i = 0; i < 4; i += 2)
                ptx::mma_16bit<T>(product[tile], {weights[0][i], weights[1][i], weights[0][i + 1], weights[1][i + 1]},
                                  {columns[i], columns[i + 1]});
        }
    }
    float scales[2] = {1.0f, 1.0f};
    if constexpr (kFormat == WeightFormat::kInt4) {
        UNROLL
        for (int half = 0; half < 2; ++half) scales[half] = int4_scale(uint16_t(loaded.scales[half]), wscale_dtype);
    }
    UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
        UNROLL
        for (int i = 0; i < 4; ++i) sum[tile][i] = ptx::fma(scales[i / 2], product[tile][i], sum[tile][i]);
    }
}

// The sums of all warps, in shared memory: [warp][weight row][row of x].
template <int kTiles>
struct GemvSums {
    static constexpr int kWidth = kTiles * kGemvColumns;
    static constexpr size_t kBytes = kGemvWarps * kGemvRows * kWidth * sizeof(float);
    uint8_t* shared;

    DEVICE uint8_t* at(int warp, int row, int column) const {
        return shared + ((warp * kGemvRows + row) * kWidth + column) * sizeof(float);
    }

    // Lanes of quads 0 and 1 hold columns 2q and 2q + 1 once both halves of the step are added.
    DEVICE void put(float (&sum)[kTiles][4], int warp, int group, int quad) const {
        UNROLL
        for (int tile = 0; tile < kTiles; ++tile) {
            UNROLL
            for (int i = 0; i < 4; ++i) {
                const float both = sum[tile][i] + ptx::shuffle_xor(sum[tile][i], 2);
                if (quad < 2) ptx::store_shared(at(warp, group + i / 2 * 8, tile * kGemvColumns + 2 * quad + i % 2), both);
            }
        }
    }

    // x row m times weight row `row` of a row tile, over all of K.
    DEVICE float total(const GemvArguments& arguments, int row_tile, int row, int m) const {
        const int parts = arguments.product.parts;
        float sum = 0.0f;
        ROLLED
        for (int warp = row_tile; warp < kGemvWarps; warp += arguments.row_tiles) {
            ROLLED
            for (int part = 0; part < parts; ++part) sum += ptx::load_shared<float>(at(warp, row, m * parts + part));
        }
        return sum;
    }
};

// Several neighbouring threads share a weight row: they split the rank, and each writes every so many-th row of y.
template <int kTiles>
DEVICE void write_gemv(const GemvSums<kTiles>& sums, const GemvArguments& arguments) {
    const W4A16Arguments& product = arguments.product;
    const int sharers = kGemvThreads / (kGemvRows * arguments.row_tiles);
    const int row = int(threadIdx.x) / sharers, sharer = int(threadIdx.x) % sharers;
    const int n = int(blockIdx.x) * kGemvRows * arguments.row_tiles + row;
    const bool inside = n < product.n;
    const float scale = remaining_scale(product), bias = inside ? bias_of(product, n) : 0.0f;
    ROLLED
    for (int m = 0; m < product.m; ++m) {
        float low_rank = 0.0f;
        ROLLED
        for (int r = sharer; r < product.rank && inside; r += sharers) {
            low_rank = ptx::fma(load_element(product.low_rank_act, int64_t(m) * product.rank + r),
                                load_element(product.proj_up, int64_t(n) * product.rank + r), low_rank);
        }
        ROLLED
        for (int mask = sharers / 2; mask; mask /= 2) low_rank += ptx::shuffle_xor(low_rank, mask);
        if (!inside || sharer != m % sharers) continue;
        const float y = ptx::fma(sums.total(arguments, row / kGemvRows, row % kGemvRows, m), scale, low_rank) + bias;
        store_element(product.out, int64_t(m) * product.n + n, product.out_dtype, y);
    }
}

template <class T, WeightFormat kFormat, int kTiles>
KERNEL void LAUNCH_BOUNDS(kGemvThreads, kTiles <= 2 ? 2 : 1) gemv_w4a16_kernel(GemvArguments arguments) {
    SHARED_MEMORY(shared);
    const W4A16Arguments& product = arguments.product;
    const int warp = int(threadIdx.x) / 32, group = int(threadIdx.x) % 32 / 4, quad = int(threadIdx.x) % 4;
    const int row = (int(blockIdx.x) * arguments.row_tiles + warp % arguments.row_tiles) * kGemvRows + group;
    const GemvWeight<kFormat> weight(product, row, quad);
    const GemvActivation x(product, group, quad);
    const int splits = kGemvWarps / arguments.row_tiles, steps = (product.k + kGemvStep - 1) / kGemvStep;

    // Two steps are on their way while one is multiplied.
    float sum[kTiles][4] = {};
    constexpr int kLoaded = 3;
    int step = warp / arguments.row_tiles;
    GemvStep loaded[kLoaded] = {weight.load(step), weight.load(step + splits)};
    while (step < steps) {
        UNROLL
        for (int i = 0; i < kLoaded && step < steps; ++i) {
            loaded[(i + 2) % kLoaded] = weight.load(step + 2 * splits);
            multiply_step<T, kFormat, kTiles>(sum, loaded[i], x, step, product.wscales.dtype);
            step += splits;
        }
    }

    const GemvSums<kTiles> sums{shared};
    sums.put(sum, warp, group, quad);
    ptx::barrier();
    write_gemv(sums, arguments);
}

}  // namespace halfbyte
