// E2M1 codes in blocks of 16 with an E4M3 scale each: one m16n8k64 instruction scales and sums four blocks.
#pragma once

#include "gemm_kernel.h"

namespace halfbyte {

constexpr int kBlockBytes = 8;  // 16 codes
constexpr int kBlocksPerStep = kStepBytes / kBlockBytes;
constexpr int kBlocksPerSlice = kBlocksPerStep / kSlicesPerStep;

// Copies the scales of a step: for each of its blocks those of all rows (or columns) of the tile, eight in one thread.
template <int kRows>
struct BlockScaleCopier {
    static constexpr int kBytes = kBlocksPerStep * kRows;
    static constexpr int kThreads = kBytes / 8, kThreadsPerBlock = kRows / 8;

    const uint8_t* source;
    size_t step_bytes;
    int blocks_left;

    DEVICE static int first_row() { return int(threadIdx.x) % kThreadsPerBlock * 8; }

    // scales [blocks, stride]; row: where the rows of this thread begin, or -1 when they lie outside.
    DEVICE BlockScaleCopier(const void* scales, int blocks, int stride, int row) {
        const int block = int(threadIdx.x) / kThreadsPerBlock;
        source = static_cast<const uint8_t*>(scales) + size_t(block) * stride + row;
        step_bytes = size_t(kBlocksPerStep) * stride;
        blocks_left = row < 0 ? 0 : blocks - block;
    }

    DEVICE void copy(uint8_t* shared) {
        if (int(threadIdx.x) < kThreads) ptx::cp_async_8(shared + threadIdx.x * 8, source, blocks_left > 0);
        source += step_bytes;
        blocks_left -= kBlocksPerStep;
    }
};

template <class Tile_, class T>
struct Nvfp4Math {
    using Tile = Tile_;
    using Scalar = T;
    using CodeRows = TokenRows<Tile>;
    using Arguments = typename CodeRows::Arguments;
    static constexpr bool kCompiled = ptx::kHasNvfp4;
    static constexpr int kBlocksPerMultiprocessor = Tile::kThreads == 128 ? 4 : 1;
    using ActScales = BlockScaleCopier<Tile::kBlockM>;
    using WeightScales = BlockScaleCopier<Tile::kBlockN>;
    static constexpr int kScaleBytes = ActScales::kBytes + WeightScales::kBytes;
    static_assert(ActScales::kThreads <= Tile::kThreads && WeightScales::kThreads <= Tile::kThreads, "one chunk a thread");
    static_assert(Tile::kTilesM % 2 == 0 && Tile::kTilesN % 4 == 0, "a word of every lane scales two tiles of rows, four of columns");

    const GemmArguments& arguments;
    ActScales act_scales;
    WeightScales weight_scales;
    // Four lanes share rows g and g + 8 of every fragment, and an instruction names those whose scales it takes. So the first two
    // keep the scales of those rows of one tile, the others those of the next; and each of the four keeps a column of another tile.
    int row_of_lane, column_of_lane;
    float y[Tile::kTilesM][Tile::kTilesN][4];

    DEVICE Nvfp4Math(const GemmArguments& arguments, const Place<Tile>& place, const Columns<Tile>& columns, const CodeRows&)
        : arguments(arguments),
          act_scales(arguments.ascales, arguments.row_bytes / kBlockBytes, arguments.padded_m, first_row(arguments, place)),
          weight_scales(arguments.wscales, arguments.row_bytes / kBlockBytes, arguments.n, columns.of(WeightScales::first_row())),
          row_of_lane(place.warp_row + 8 * place.quad + place.row_in_group),
          column_of_lane(place.warp_column + 8 * place.quad + place.row_in_group),
          y{} {}

    DEVICE static int first_row(const GemmArguments& arguments, const Place<Tile>& place) {
        const int row = place.first_row() + ActScales::first_row();
        return row < arguments.padded_m ? row : -1;
    }

    DEVICE void copy_scales(uint8_t* stage) {
        act_scales.copy(stage);
        weight_scales.copy(stage + ActScales::kBytes);
    }

    // The scales of the four blocks of a slice.
    template <int kRows>
    DEVICE static uint32_t four_scales(const uint8_t* scales) {
        uint32_t word = 0;
        UNROLL
        for (int block = 0; block < kBlocksPerSlice; ++block)
            word |= uint32_t(ptx::load_shared<uint8_t>(scales + block * kRows)) << 8 * block;
        return word;
    }

    DEVICE void multiply(const Fragments<Tile>& fragments, const uint8_t* stage) {
        UNROLL
        for (int slice = 0; slice < kSlicesPerStep; ++slice) {
            const uint8_t* act = stage + Tile::kCodeBytes + slice * kBlocksPerSlice * Tile::kBlockM;
            const uint8_t* weight = stage + Tile::kCodeBytes + ActScales::kBytes + slice * kBlocksPerSlice * Tile::kBlockN;
            uint32_t row_scales[Tile::kTilesM / 2], column_scales[Tile::kTilesN / 4];
            UNROLL
            for (int two = 0; two < Tile::kTilesM / 2; ++two)
                row_scales[two] = four_scales<Tile::kBlockM>(act + row_of_lane + 32 * two);
            UNROLL
            for (int four = 0; four < Tile::kTilesN / 4; ++four)
                column_scales[four] = four_scales<Tile::kBlockN>(weight + column_of_lane + 32 * four);
            for_each_tile(
                fragments, stage, slice, [](int) {},
                [&](int i, int j, const uint32_t (&a)[4], const uint32_t (&b)[2]) {
                    ptx::mma_nvfp4(y[i][j], a, b, row_scales[i / 2], column_scales[j / 4], i % 2, j % 4);
                });
        }
    }

    DEVICE void finish(float (&product)[Tile::kTilesM][Tile::kTilesN][4]) const {
        const float scale = ptx::load_readonly(arguments.wtscale);
        UNROLL
        for (int i = 0; i < Tile::kTilesM; ++i)
            UNROLL
            for (int j = 0; j < Tile::kTilesN; ++j)
                UNROLL
                for (int e = 0; e < 4; ++e) product[i][j][e] = y[i][j][e] * scale;
    }
};

}  // namespace halfbyte
