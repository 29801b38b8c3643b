// A warpgroup that multiplies 64 rows of every tile of its block.
#pragma once

#include "sm90_activation.h"
#include "sm90_producer.h"
#include "sm90_product.h"
#include "sm90_quantize.h"

namespace halfbyte {

// kPromotes: the sums move into float32 by and by, scaled for their rows. kQuantizes: the output, for the next layer.
template <class T, class Product, class Tile, bool kPromotes, bool kQuantizes>
struct Consumer {
    static constexpr int kValues = Tile::kValues, kSlices = kBoxBytes / 32;
    static_assert(kPromotes || Product::kBoxesOfSum == kUnlimitedBoxes, "sums that lose bits must move in time");

    const WarpgroupArguments& warpgroup_arguments;
    const GemmArguments& arguments;
    const WarpgroupMemory<Tile> memory;
    const int rank, warp, lane;  // warp: of the consumers
    Ring<Tile> ring;

    DEVICE Consumer(const WarpgroupArguments& arguments, const WarpgroupMemory<Tile>& memory, int rank, int warp)
        : warpgroup_arguments(arguments), arguments(arguments.gemm), memory(memory), rank(rank), warp(warp),
          lane(int(threadIdx.x) % 32) {}

    DEVICE void run() {
        const ClusterTiles<Tile> tiles(arguments);
        const int stride = int(gridDim.x) / Tile::kBlocks;
        ROLLED
        for (int pair = int(blockIdx.x) / Tile::kBlocks; pair < tiles.count(); pair += stride) {
            const auto block = tiles.block(pair, rank);
            const Columns<Tile> columns(arguments, block.column);
            const int first_row = block.row * Tile::kBlockM + 16 * warp;
            RowScales row_scales(arguments, first_row + lane / 4);
            uint32_t y[kValues];
            if constexpr (kPromotes) {
                promote_codes(y, row_scales, columns);
            } else {
                sum_boxes(y, boxes_over(arguments.row_bytes), [&] { fetch_column_operands(columns); });
            }
            scale(y, row_scales);
            if (arguments.rank_bytes) multiply_ranks(y);
            const EpilogueArguments& epilogue = arguments.epilogue;
            if (columns.pairs || epilogue.activation != Activation::kNone) activate_tile(y, epilogue.activation, columns.pairs);
            if constexpr (kQuantizes) {
                QuantizeWarp<T, Tile>(arguments, columns, {memory.staging(warp)}, ptx::fresh(lane), first_row).run(y);
            } else {
                write_rows<T, Tile>(y, memory.staging(warp), ptx::fresh(lane), first_row, columns, warpgroup_arguments);
            }
        }
        if constexpr (!kQuantizes) wait_until_boxes_left(lane);
    }

private:
    DEVICE uint64_t tokens() const {
        return ptx::matrix_descriptor(memory.tokens(ring.stage) + warp / 4 * Tile::kHalfM * kBoxBytes);
    }

    DEVICE uint64_t weights() const { return ptx::matrix_descriptor(memory.weights(ring.stage)); }

    DEVICE void wait_until_filled() const { ptx::mbarrier_wait(memory.filled(ring.stage), ring.parity); }

    // Both blocks write into this one's stages, so both must know.
    DEVICE void release(int stage) const {
        if (lane < Tile::kBlocks) ptx::mbarrier_arrive_at(memory.emptied(stage), lane);
    }

    // The products of `boxes` stages, from zero on. meanwhile(): what is done while the tensor cores are busy with the first.
    template <class Meanwhile>
    DEVICE void sum_boxes(uint32_t (&sums)[kValues], int boxes, Meanwhile meanwhile) {
        add_box<false>(sums);
        meanwhile();
        int unreleased = ring.stage;
        ring.next();
        ROLLED
        for (int box = 1; box < boxes; ++box) {
            add_box<true>(sums);
            ptx::wgmma_wait<1>();
            release(unreleased);
            unreleased = ring.stage;
            ring.next();
        }
        ptx::wgmma_wait<0>();
        ptx::pin(sums);
        release(unreleased);
    }

    template <bool kAccumulates>
    DEVICE void add_box(uint32_t (&sums)[kValues]) {
        wait_until_filled();
        const uint64_t a = tokens(), b = weights();
        ptx::wgmma_fence();
        UNROLL
        for (int slice = 0; slice < kSlices; ++slice)
            Product::add(sums, ptx::along_rows(a, slice), ptx::along_rows(b, slice), kAccumulates || slice > 0);
        ptx::wgmma_commit();
    }

    // Of the two rows that a thread has, in one segment after another.
    struct RowScales {
        const float* next;
        int row, rows, stride;
        float upper, lower;

        DEVICE RowScales(const GemmArguments& arguments, int row)
            : next(static_cast<const float*>(arguments.ascales) + row), row(row), rows(arguments.m), stride(arguments.padded_m) {
            load();
        }

        DEVICE void load() {
            upper = row < rows ? ptx::load_readonly(next) : 0.0f;
            lower = row + 8 < rows ? ptx::load_readonly(next + 8) : 0.0f;
            next += stride;
        }
    };

    // The tile's weight scales and bias, into the staging area, which is free once the tile before has left it until this one is
    // written.
    DEVICE void fetch_column_operands(const Columns<Tile>& columns) const {
        const auto* bias = static_cast<const T*>(arguments.epilogue.bias);
        if constexpr (kQuantizes) {
            ptx::warp_sync();
        } else {
            wait_until_boxes_left(lane);
        }
        copy_columns(column_scales(), static_cast<const float*>(arguments.wscales), columns);
        if (bias) copy_columns(column_bias(), bias, columns);
        ptx::cp_async_commit();
    }

    template <class Value>
    DEVICE void copy_columns(uint8_t* to, const Value* from, const Columns<Tile>& columns) const {
        constexpr int kTogether = 16 / sizeof(Value);
        const int lane = ptx::fresh(this->lane);
        UNROLL
        for (int pass = 0; pass * 32 * kTogether < Tile::kBlockN; ++pass) {
            const int first = kTogether * (lane + 32 * pass);
            if (Tile::kBlockN % (32 * kTogether) && first >= Tile::kBlockN) break;
            const int column = columns.of(first);
            ptx::cp_async_16(to + first * sizeof(Value), from + (column < 0 ? 0 : column), column >= 0);
        }
    }

    DEVICE uint8_t* column_scales() const { return memory.staging(warp); }

    DEVICE uint8_t* column_bias() const { return column_scales() + Tile::kBlockN * sizeof(float); }

    // y: bits of the float32 products with the rows' scales applied.
    DEVICE void promote_codes(uint32_t (&y)[kValues], RowScales& row_scales, const Columns<Tile>& columns) {
        const int boxes_of_segment = boxes_over(arguments.segment_bytes);
        int left_of_segment = boxes_of_segment;
        const int all_boxes = boxes_over(arguments.row_bytes);
        UNROLL
        for (int i = 0; i < kValues; ++i) y[i] = 0;
        ROLLED
        for (int left = all_boxes; left > 0;) {
            const bool first = left == all_boxes;
            const int boxes = left_of_segment < Product::kBoxesOfSum ? left_of_segment : Product::kBoxesOfSum;
            left -= boxes;
            left_of_segment -= boxes;
            const float upper = row_scales.upper, lower = row_scales.lower;
            if (left_of_segment == 0) {
                left_of_segment = boxes_of_segment;
                // The scales of the next segment arrive while this one's products are summed.
                if (left > 0) row_scales.load();
            }
            uint32_t sums[kValues];
            sum_boxes(sums, boxes, [&] {
                if (first) fetch_column_operands(columns);
            });
            UNROLL
            for (int i = 0; i < kValues; ++i)
                y[i] = ptx::float_bits(ptx::fma(Product::value(sums[i]), i % 4 < 2 ? upper : lower, ptx::bits_float(y[i])));
        }
    }

    // y becomes bits of the float32 products with all scales applied, and the bias added: the ranks' product may follow.
    DEVICE void scale(uint32_t (&y)[kValues], const RowScales& row_scales) const {
        ptx::cp_async_wait<0>();
        ptx::warp_sync();
        const bool biased = arguments.epilogue.bias;
        const int lane = ptx::fresh(this->lane);
        // Rolled, or all scales would be loaded before the first is used, and there are no registers for them.
        constexpr int kTogether = 4, kSteps = Tile::kBlockN / 8 / kTogether;
        ROLLED
        for (int step = 0; step < kSteps; ++step) {
            float scales[kTogether][2], added[kTogether][2] = {};
            UNROLL
            for (int j = 0; j < kTogether; ++j) {
                const int column = 8 * (kTogether * step + j) + 2 * (lane % 4);
                const Words2 pair = ptx::load_shared<Words2>(column_scales() + column * sizeof(float));
                scales[j][0] = ptx::bits_float(pair.x);
                scales[j][1] = ptx::bits_float(pair.y);
                if (!biased) continue;
                ptx::unpack2<T>(ptx::load_shared<uint32_t>(column_bias() + column * sizeof(T)), added[j][0], added[j][1]);
            }
            UNROLL
            for (int each = 0; each < kSteps; ++each) {
                if (step != each) continue;
                UNROLL
                for (int i = 0; i < 4 * kTogether; ++i) {
                    uint32_t& word = y[4 * kTogether * each + i];
                    float product;
                    if constexpr (kPromotes) {
                        product = ptx::bits_float(word);
                    } else {
                        product = Product::value(word) * (i % 4 < 2 ? row_scales.upper : row_scales.lower);
                    }
                    product *= scales[i / 4][i % 2];
                    word = ptx::float_bits(biased ? product + added[i / 4][i % 2] : product);
                }
                KEEP_APART();
            }
        }
    }

    DEVICE void multiply_ranks(uint32_t (&y)[kValues]) {
        ptx::pin(y);
        ROLLED
        for (int left = arguments.rank_bytes; left > 0; left -= kBoxBytes, ring.next()) {
            wait_until_filled();
            const uint64_t a = tokens(), b = weights();
            // Two products at a time: 32 ranks, the least that most layers have, take no more. What lies beyond the last is zero.
            constexpr int kTogether = 2;
            const int slices = left < kBoxBytes ? (left + 31) / 32 : kSlices;
            ROLLED
            for (int slice = 0; slice < slices; slice += kTogether) {
                ptx::wgmma_fence();
                UNROLL
                for (int each = 0; each < kTogether; ++each)
                    ptx::wgmma_16bit<T>(y, ptx::along_rows(a, slice + each), ptx::along_rows(b, slice + each));
                ptx::wgmma_commit();
                ptx::wgmma_wait<0>();
            }
            release(ring.stage);
        }
        ptx::pin(y);
    }
};

}  // namespace halfbyte
