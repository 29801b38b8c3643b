// gemm_w4a16 for up to a few hundred rows of x: a pipeline of x tiles in shared memory, weights decoded in registers, the
// tensor cores on 16-bit numbers. As in the matrix-vector product the weight's rows are the instruction's rows.
#pragma once

#include "w4a16_codes.h"

namespace halfbyte {

constexpr int kGemmThreads = 128;  // 2 x 2 warps
constexpr int kGemmBlockN = 64;    // weight rows
constexpr int kGemmBlockC = 64;    // rows of x, both parts counted
constexpr int kGemmStep = 64;      // columns of K, one int4 group
constexpr int kGemmStages = 4;
constexpr int kWeightTiles = 2;    // of 16 weight rows, in a warp
constexpr int kColumnTiles = 4;    // of 8 rows of x, in a warp
// 16 bytes of padding put the eight lanes that load together into different banks.
constexpr int kStageRowBytes = kGemmStep * 2 + 16;
constexpr int kStageBytes = kGemmBlockC * kStageRowBytes;

// After the product: sums as [row of x][weight row], then chunks of the low-rank operands.
constexpr int kRankChunk = 32;
constexpr int kSumStride = kGemmBlockN + 4;
constexpr int kSumBytes = kGemmBlockC * kSumStride * 4;
constexpr int kProjUpBytes = kRankChunk * kSumStride * 4;
constexpr int kLowRankStride = kRankChunk + 1;
constexpr int kLowRankBytes = kGemmBlockC * kLowRankStride * 4;

constexpr size_t kGemmSharedBytes = kGemmStages * kStageBytes;
static_assert(kSumBytes + kProjUpBytes + kLowRankBytes <= kGemmSharedBytes, "the low-rank operands lie where the pipeline was");

struct GemmPlace {
    int thread, warp_n, warp_c, group, quad;

    DEVICE GemmPlace()
        : thread(int(threadIdx.x)),
          warp_n(thread / 32 % 2 * 32),
          warp_c(thread / 64 * 32),
          group(thread % 32 / 4),
          quad(thread % 4) {}

    DEVICE int first_n() const { return int(blockIdx.x) * kGemmBlockN; }
    DEVICE int first_column() const { return int(blockIdx.y) * kGemmBlockC; }
};

// The part of each x tile that one thread copies: a 16-byte chunk of every eighth of its rows.
struct XCopy {
    static constexpr int kChunks = kGemmStep / 8;
    static constexpr int kPasses = kGemmBlockC * kChunks / kGemmThreads;
    static constexpr int kRowsPerPass = kGemmThreads / kChunks;
    const uint16_t* source;
    int rows_left, first_k, k, target;

    DEVICE XCopy(const W4A16Arguments& product, const GemmPlace& place) : first_k(place.thread % kChunks * 8), k(product.k) {
        const int row = place.thread / kChunks, column = place.first_column() + row;
        rows_left = product.m * product.parts - column;
        source = product.x + (rows_left > 0 ? int64_t(column) * k + first_k : 0);
        target = row * kStageRowBytes + first_k * 2;
    }

    DEVICE void start(uint8_t* stage, int step) const {
        UNROLL
        for (int pass = 0; pass < kPasses; ++pass) {
            const bool valid = pass * kRowsPerPass < rows_left && first_k + step * kGemmStep < k;
            ptx::cp_async_16(stage + target + pass * kRowsPerPass * kStageRowBytes,
                             source + (valid ? pass * kRowsPerPass * k + step * kGemmStep : 0), valid);
        }
        ptx::cp_async_commit();
    }
};

// What a lane holds of one step: 16 codes of each of its weight rows, and their scales as stored.
struct GemmWeight {
    Words2 codes[kWeightTiles][2];
    uint16_t scales[kWeightTiles][2];
};

template <WeightFormat kFormat>
struct GemmWeightRows {
    const W4A16Arguments& product;
    const uint8_t* codes;  // of the lane's first row, from its place in the first step on
    int first_row, first_k;

    DEVICE GemmWeightRows(const W4A16Arguments& product, const GemmPlace& place)
        : product(product), first_row(place.first_n() + place.warp_n + place.group), first_k(place.quad * 16) {
        codes = product.qweight + (first_row < product.n ? (int64_t(first_row) * product.k + first_k) / 2 : 0);
    }

    DEVICE uint16_t load_scale(int row, int k) const {
        if constexpr (kFormat == WeightFormat::kInt4) {
            const auto* scales = static_cast<const uint16_t*>(product.wscales.data);
            return ptx::load_readonly(scales + (unsigned(k) / kInt4Group * product.n + row));
        } else {
            const auto* scales = static_cast<const uint8_t*>(product.wscales.data);
            return ptx::load_readonly(scales + (unsigned(k) / kNvfp4Group * product.n + row));
        }
    }

    // Zeros outside the weight, which add nothing.
    DEVICE GemmWeight load(int step) const {
        const int k = step * kGemmStep + first_k;
        GemmWeight weight = {};
        UNROLL
        for (int i = 0; i < kWeightTiles * 2; ++i) {
            if (first_row + 8 * i >= product.n || k >= product.k) continue;
            const uint8_t* at = codes + (4 * i * product.k + step * (kGemmStep / 2));
            weight.codes[i / 2][i % 2] = ptx::load_readonly(reinterpret_cast<const Words2*>(at));
            weight.scales[i / 2][i % 2] = load_scale(first_row + 8 * i, k);
        }
        return weight;
    }
};

using GemmSums = float[kWeightTiles][kColumnTiles][4];

template <class T, WeightFormat kFormat>
DEVICE void multiply_step(GemmSums& sums, const GemmWeight& weight, const uint8_t* stage, const GemmPlace& place,
                          Dtype wscale_dtype) {
    GemmSums products = {};
    UNROLL
    for (int word = 0; word < 2; ++word) {
        uint32_t weights[kWeightTiles][2][4];
        UNROLL
        for (int tile = 0; tile < kWeightTiles; ++tile) {
            UNROLL
            for (int half = 0; half < 2; ++half) {
                const Words2& codes = weight.codes[tile][half];
                const uint32_t multiplier =
                    kFormat == WeightFormat::kNvfp4 ? nvfp4_multiplier<T>(uint8_t(weight.scales[tile][half])) : 0;
                decode<T, kFormat>(word ? codes.y : codes.x, multiplier, weights[tile][half]);
            }
        }
        UNROLL
        for (int column = 0; column < kColumnTiles; ++column) {
            const int row = place.warp_c + column * 8 + place.group;
            uint32_t x[4];
            pair_columns(ptx::load_shared<Words4>(stage + row * kStageRowBytes + place.quad * 32 + word * 16), x);
            UNROLL
            for (int tile = 0; tile < kWeightTiles; ++tile) {
                const auto& w = weights[tile];
                UNROLL
                for (int i = 0; i < 4; i += 2)
                    ptx::mma_16bit<T>(products[tile][column], {w[0][i], w[1][i], w[0][i + 1], w[1][i + 1]}, {x[i], x[i + 1]});
            }
        }
    }
    UNROLL
    for (int tile = 0; tile < kWeightTiles; ++tile) {
        float scales[2] = {1.0f, 1.0f};
        if constexpr (kFormat == WeightFormat::kInt4) {
            scales[0] = int4_scale(weight.scales[tile][0], wscale_dtype);
            scales[1] = int4_scale(weight.scales[tile][1], wscale_dtype);
        }
        UNROLL
        for (int column = 0; column < kColumnTiles; ++column) {
            UNROLL
            for (int i = 0; i < 4; ++i)
                sums[tile][column][i] = ptx::fma(scales[i / 2], products[tile][column][i], sums[tile][column][i]);
        }
    }
}

// Neighbouring columns of a fragment are the two parts of one row of x, or two rows.
DEVICE void put_sums(uint8_t* shared, const GemmSums& sums, const GemmPlace& place, int parts) {
    UNROLL
    for (int tile = 0; tile < kWeightTiles; ++tile) {
        UNROLL
        for (int column = 0; column < kColumnTiles; ++column) {
            UNROLL
            for (int half = 0; half < 2; ++half) {
                const int n = place.warp_n + tile * 16 + half * 8 + place.group;
                const int c = place.warp_c + column * 8 + place.quad * 2;
                const float first = sums[tile][column][2 * half], second = sums[tile][column][2 * half + 1];
                uint8_t* at = shared + (c / parts * kSumStride + n) * 4;
                ptx::store_shared(at, parts == 2 ? first + second : first);
                if (parts == 1) ptx::store_shared(at + kSumStride * 4, second);
            }
        }
    }
}

// The output side of a thread: four neighbouring weight rows of every eighth row of x.
constexpr int kOutWidth = 4;
constexpr int kOutThreadsN = kGemmBlockN / kOutWidth;
constexpr int kOutRowStep = kGemmThreads / kOutThreadsN;
constexpr int kOutRows = kGemmBlockC / kOutRowStep;

struct LowRankChunk {
    uint8_t* proj_up;       // [kRankChunk][kSumStride], transposed
    uint8_t* low_rank_act;  // [kGemmBlockC][kLowRankStride]

    // Zeros beyond the rank and the edges of the output.
    DEVICE void fill(const W4A16Arguments& product, const GemmPlace& place, int first_m, int first_rank) const {
        ROLLED
        for (int i = place.thread; i < kRankChunk * kGemmBlockN; i += kGemmThreads) {
            const int rank = i % kRankChunk, row = i / kRankChunk, r = first_rank + rank;
            const int n = place.first_n() + row, m = first_m + row;
            const bool up = r < product.rank && n < product.n, act = r < product.rank && m < product.m;
            ptx::store_shared(proj_up + (rank * kSumStride + row) * 4,
                              up ? load_element(product.proj_up, int64_t(n) * product.rank + r) : 0.0f);
            ptx::store_shared(low_rank_act + (row * kLowRankStride + rank) * 4,
                              act ? load_element(product.low_rank_act, int64_t(m) * product.rank + r) : 0.0f);
        }
    }

    DEVICE void add(float (&y)[kOutRows][kOutWidth], int row, int column) const {
        ROLLED
        for (int rank = 0; rank < kRankChunk; ++rank) {
            const Words4 up = ptx::load_shared<Words4>(proj_up + (rank * kSumStride + column) * 4);
            const float weights[kOutWidth] = {ptx::bits_float(up.x), ptx::bits_float(up.y), ptx::bits_float(up.z),
                                              ptx::bits_float(up.w)};
            UNROLL
            for (int i = 0; i < kOutRows; ++i) {
                const float act = ptx::load_shared<float>(low_rank_act + ((row + i * kOutRowStep) * kLowRankStride + rank) * 4);
                UNROLL
                for (int e = 0; e < kOutWidth; ++e) y[i][e] = ptx::fma(act, weights[e], y[i][e]);
            }
        }
    }
};

DEVICE void store_four(void* out, int64_t index, Dtype dtype, const float (&y)[kOutWidth]) {
    if (dtype == Dtype::kFloat) {
        ptx::store(reinterpret_cast<Words4*>(static_cast<float*>(out) + index), float_words(y[0], y[1], y[2], y[3]));
        return;
    }
    const Words2 words = dtype == Dtype::kHalf ? Words2{ptx::pack2<Half>(y[0], y[1]), ptx::pack2<Half>(y[2], y[3])}
                                               : Words2{ptx::pack2<Bfloat>(y[0], y[1]), ptx::pack2<Bfloat>(y[2], y[3])};
    ptx::store(reinterpret_cast<Words2*>(static_cast<uint16_t*>(out) + index), words);
}

DEVICE void write_gemm(uint8_t* shared, const W4A16Arguments& product, const GemmPlace& place) {
    const int row = place.thread / kOutThreadsN, column = place.thread % kOutThreadsN * kOutWidth;
    const int first_m = place.first_column() / product.parts, rows = kGemmBlockC / product.parts;
    const int n = place.first_n() + column;
    const float scale = remaining_scale(product);
    float y[kOutRows][kOutWidth] = {};
    UNROLL
    for (int i = 0; i < kOutRows; ++i) {
        if (row + i * kOutRowStep >= rows) continue;
        UNROLL
        for (int e = 0; e < kOutWidth; ++e)
            y[i][e] = ptx::load_shared<float>(shared + ((row + i * kOutRowStep) * kSumStride + column + e) * 4) * scale;
    }
    const LowRankChunk chunk{shared + kSumBytes, shared + kSumBytes + kProjUpBytes};
    ROLLED
    for (int rank = 0; rank < product.rank; rank += kRankChunk) {
        ptx::barrier();
        chunk.fill(product, place, first_m, rank);
        ptx::barrier();
        chunk.add(y, row, column);
    }
    if (n >= product.n) return;
    float bias[kOutWidth];
    UNROLL
    for (int e = 0; e < kOutWidth; ++e) bias[e] = bias_of(product, n + e);
    UNROLL
    for (int i = 0; i < kOutRows; ++i) {
        const int m = first_m + row + i * kOutRowStep;
        if (row + i * kOutRowStep >= rows || m >= product.m) continue;
        UNROLL
        for (int e = 0; e < kOutWidth; ++e) y[i][e] += bias[e];
        store_four(product.out, int64_t(m) * product.n + n, product.out_dtype, y[i]);
    }
}

template <class T, WeightFormat kFormat>
KERNEL void LAUNCH_BOUNDS(kGemmThreads, 3) gemm_w4a16_kernel(W4A16Arguments product) {
    SHARED_MEMORY(shared);
    const GemmPlace place;
    const XCopy copy(product, place);
    const GemmWeightRows<kFormat> rows(product, place);
    const int steps = (product.k + kGemmStep - 1) / kGemmStep;
    UNROLL
    for (int step = 0; step < kGemmStages - 1; ++step) copy.start(shared + step * kStageBytes, step);

    GemmSums sums = {};
    GemmWeight next = rows.load(0);
    ROLLED
    for (int step = 0; step < steps; ++step) {
        ptx::cp_async_wait<kGemmStages - 2>();
        ptx::barrier();
        const int ahead = step + kGemmStages - 1;
        copy.start(shared + ahead % kGemmStages * kStageBytes, ahead);
        const GemmWeight current = next;
        next = rows.load(step + 1);
        multiply_step<T, kFormat>(sums, current, shared + step % kGemmStages * kStageBytes, place, product.wscales.dtype);
    }

    ptx::cp_async_wait<0>();
    ptx::barrier();
    put_sums(shared, sums, place, product.parts);
    ptx::barrier();
    write_gemm(shared, product, place);
}

}  // namespace halfbyte
