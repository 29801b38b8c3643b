// INT8 and E4M3 codes: one scale per output channel, and per token or per K-segment of a token.
#pragma once

#include "gemm_kernel.h"

namespace halfbyte {

struct Int8Product {
    using Sum = int;
    static constexpr bool kCompiled = true;
    DEVICE static void add(int (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { ptx::mma_s8(sum, a, b); }
};

struct E4m3Product {
    using Sum = float;
    static constexpr bool kCompiled = ptx::kHasE4m3;
    // Unit block scales: on GeForce the plain FP8 instruction with float32 sums runs at half the rate of the scaled one.
    DEVICE static void add(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { ptx::mma_e4m3_unit_scaled(sum, a, b); }
};

template <class Tile_, class T, class Product, bool kSegmented, template <class> class Rows>
struct EightBitMath {
    using Tile = Tile_;
    using Scalar = T;
    using CodeRows = Rows<Tile>;
    static constexpr bool kCompiled = Product::kCompiled;
    static constexpr int kBlocksPerMultiprocessor = Tile::kThreads == 128 && !kSegmented ? 4 : 1;
    using Arguments = typename CodeRows::Arguments;
    using Sum = typename Product::Sum;
    static constexpr int kScaleBytes = 0;

    const Arguments& arguments;
    const Place<Tile>& place;
    const Columns<Tile>& columns;
    const CodeRows& rows;
    typename CodeRows::Segment segment;
    int bytes_left, steps_left;  // in K, and in the segment
    typename CodeRows::ScaleRow scale_rows[Tile::kTilesM][2];
    Sum sums[Tile::kTilesM][Tile::kTilesN][4];
    float row_scale[Tile::kTilesM][2];
    // Only segments need a second accumulator.
    float y[kSegmented ? Tile::kTilesM : 1][kSegmented ? Tile::kTilesN : 1][4];

    DEVICE EightBitMath(const Arguments& arguments, const Place<Tile>& place, const Columns<Tile>& columns, const CodeRows& rows)
        : arguments(arguments),
          place(place),
          columns(columns),
          rows(rows),
          segment(arguments),
          bytes_left(arguments.row_bytes),
          steps_left(segment_steps()),
          sums{},
          y{} {
        if constexpr (kSegmented) {
            find_scale_rows();
            load_row_scales();
        }
    }

    DEVICE int segment_steps() const { return arguments.segment_bytes / kStepBytes; }

    DEVICE void find_scale_rows() {
        UNROLL
        for (int i = 0; i < Tile::kTilesM; ++i)
            UNROLL
            for (int half = 0; half < 2; ++half)
                scale_rows[i][half] = rows.scale_row(place.warp_row + 16 * i + 8 * half + place.row_in_group);
    }

    DEVICE void load_row_scales() {
        const auto* scales = static_cast<const float*>(arguments.ascales);
        UNROLL
        for (int i = 0; i < Tile::kTilesM; ++i)
            UNROLL
            for (int half = 0; half < 2; ++half) {
                const int index = rows.scale_index(segment, scale_rows[i][half]);
                row_scale[i][half] = index < 0 ? 0.0f : ptx::load_readonly(scales + index);
            }
    }

    DEVICE void copy_scales(uint8_t*) const {}

    DEVICE void multiply(const Fragments<Tile>& fragments, const uint8_t* stage) {
        UNROLL
        for (int slice = 0; slice < kSlicesPerStep; ++slice)
            for_each_tile(
                fragments, stage, slice, [](int) {},
                [&](int i, int j, const uint32_t (&a)[4], const uint32_t (&b)[2]) { Product::add(sums[i][j], a, b); });
        if constexpr (kSegmented) {
            if (--steps_left) return;
            close_segment();
        }
    }

    DEVICE void close_segment() {
        UNROLL
        for (int i = 0; i < Tile::kTilesM; ++i)
            UNROLL
            for (int j = 0; j < Tile::kTilesN; ++j)
                UNROLL
                for (int e = 0; e < 4; ++e) {
                    y[i][j][e] = ptx::fma(float(sums[i][j][e]), row_scale[i][e / 2], y[i][j][e]);
                    sums[i][j][e] = 0;
                }
        steps_left = segment_steps();
        // The scales of the next segment arrive while its products are summed.
        segment.next();
        bytes_left -= arguments.segment_bytes;
        if (bytes_left > 0) load_row_scales();
    }

    DEVICE void finish(float (&product)[Tile::kTilesM][Tile::kTilesN][4]) {
        if constexpr (!kSegmented) {
            find_scale_rows();
            load_row_scales();
        }
        const auto* scales = static_cast<const float*>(arguments.wscales);
        UNROLL
        for (int j = 0; j < Tile::kTilesN; ++j) {
            const int column = columns.of(place.warp_column + 8 * j + 2 * place.quad);
            const Words2 pair = column < 0 ? Words2{0, 0} : ptx::load_readonly(reinterpret_cast<const Words2*>(scales + column));
            const float column_scale[2] = {ptx::bits_float(pair.x), ptx::bits_float(pair.y)};
            UNROLL
            for (int i = 0; i < Tile::kTilesM; ++i)
                UNROLL
                for (int e = 0; e < 4; ++e) {
                    const float by_row = kSegmented ? y[i][j][e] : float(sums[i][j][e]) * row_scale[i][e / 2];
                    product[i][j][e] = by_row * column_scale[e % 2];
                }
        }
    }
};

}  // namespace halfbyte
