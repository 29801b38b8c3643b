// INT4 codes in groups of 64: one m16n8k64 instruction per group, rescaled into float32 before the next group is added.
#pragma once

#include "gemm_kernel.h"
#include "group_scales.h"

namespace halfbyte {

// I2F runs at a quarter of the rate on sm_80. There the integer accumulator starts at the bits of 1.5 * 2^23, which makes it a float
// that one subtraction turns into the sum.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 800
constexpr int kSumStart = 0x4B400000;
DEVICE float sum_as_float(int sum) { return ptx::bits_float(uint32_t(sum)) - 12582912.0f; }
#else
constexpr int kSumStart = 0;
DEVICE float sum_as_float(int sum) { return float(sum); }
#endif

template <class Tile_, class T, bool kUnsigned, template <class> class Rows>
struct Int4Math {
    using Tile = Tile_;
    using Scalar = T;
    using CodeRows = Rows<Tile>;
    static constexpr bool kCompiled = true;
    static constexpr int kBlocksPerMultiprocessor = Tile::kThreads == 128 ? 3 : 1;
    using Arguments = typename CodeRows::Arguments;
    using Layout = GroupScaleLayout<Tile>;
    using GroupScales = typename CodeRows::template GroupScales<T>;
    static constexpr int kScaleBytes = Layout::kBytes;
    // With 128 accumulators a thread, unrolling both groups makes the compiler move and spill them: 4.45 instructions per entry in
    // place of 4.05 on sm_86. Small tiles gain from it.
    static constexpr int kGroupsAtOnce = Tile::kTilesM * Tile::kTilesN * 4 > 64 ? 1 : kGroupsPerStep;

    const Place<Tile>& place;
    float y[Tile::kTilesM][Tile::kTilesN][4];
    GroupScales scales;

    DEVICE Int4Math(const Arguments& arguments, const Place<Tile>& place, const Columns<Tile>& columns, const CodeRows& rows)
        : place(place), y{}, scales(arguments, place, columns, rows) {}

    DEVICE void copy_scales(uint8_t* stage) { scales.copy(stage); }

    DEVICE void multiply(const Fragments<Tile>& fragments, const uint8_t* stage) {
        UNROLL_BY(kGroupsAtOnce)
        for (int group = 0; group < kGroupsPerStep; ++group) {
            const uint8_t* act = stage + Tile::kCodeBytes + group * Layout::kActBytes;
            const uint8_t* weight = stage + Tile::kCodeBytes + Layout::kWeightOffset + group * Layout::kWeightBytes;
            float row_scale[Tile::kTilesM][2], column_scale[2];
            UNROLL
            for (int i = 0; i < Tile::kTilesM; ++i) {
                const uint8_t* row = act + (place.warp_row + 16 * i + place.row_in_group) * 2;
                row_scale[i][0] = ptx::to_float(ptx::load_shared<T>(row));
                row_scale[i][1] = ptx::to_float(ptx::load_shared<T>(row + 16));
            }
            for_each_tile(
                fragments, stage, group,
                [&](int j) {
                    const uint8_t* pair = weight + (place.warp_column + 8 * j + 2 * place.quad) * 2;
                    ptx::unpack2<T>(ptx::load_shared<uint32_t>(pair), column_scale[0], column_scale[1]);
                },
                [&](int i, int j, const uint32_t (&a)[4], const uint32_t (&b)[2]) {
                    int sum[4] = {kSumStart, kSumStart, kSumStart, kSumStart};
                    if constexpr (kUnsigned) {
                        ptx::mma_u4s4(sum, a, b);
                    } else {
                        ptx::mma_s4(sum, a, b);
                    }
                    UNROLL
                    for (int e = 0; e < 4; ++e)
                        y[i][j][e] = ptx::fma(sum_as_float(sum[e]), row_scale[i][e / 2] * column_scale[e % 2], y[i][j][e]);
                });
        }
    }

    DEVICE void finish(float (&product)[Tile::kTilesM][Tile::kTilesN][4]) const {
        UNROLL
        for (int i = 0; i < Tile::kTilesM; ++i)
            UNROLL
            for (int j = 0; j < Tile::kTilesN; ++j)
                UNROLL
                for (int e = 0; e < 4; ++e) product[i][j][e] = y[i][j][e];
    }
};

}  // namespace halfbyte
