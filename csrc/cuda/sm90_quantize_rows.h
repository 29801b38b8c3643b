// Quantizes groups of rows by clusters: each block reads its columns of x once and keeps what belongs to them for all groups.
#pragma once

#include "ptx.h"
#include "ptx_tma.h"
#include "sm90_quantize_columns.h"
#include "sm90_quantize_down.h"

namespace halfbyte {

template <class T, int kRanks>
struct ClusterQuantizeRows {
    using Tile = ClusterQuantizeTile;
    static constexpr int kSlots = 4;  // rows of a thread in a box, four apart

    const ClusterQuantizeArguments& arguments;
    const QuantizeArguments& quantize;
    const Tile& tile;
    uint8_t* shared;
    const int rank, lane, warp, row_tile, column_warp;
    const ActFormat format;
    const int row, chunk;   // of this thread in a box: its first row, and its columns
    const int first_chunk;  // where they lie: the copy engine turns the chunks of row r by r % 8
    const int first_box;   // of the block
    int boxes;             // of the warp
    bool exact_columns = false;
    BoxRing ring;
    Exchange exchange;
    ClusterDown<T, kRanks> down;

    DEVICE ClusterQuantizeRows(const ClusterQuantizeArguments& arguments, uint8_t* shared, int warp)
        : arguments(arguments),
          quantize(arguments.quantize),
          tile(arguments.tile),
          shared(shared),
          rank(int(ptx::cluster_rank())),
          // Through a shuffle, or each loop would read and take apart the thread's index anew.
          lane(ptx::shuffle(int(threadIdx.x % 32), int(threadIdx.x % 32))),
          warp(warp),
          row_tile(warp & (tile.row_tiles - 1)),
          column_warp(warp >> tile.row_tiles_shift),
          format(quantize.format == ActFormat::kFp8 ? ActFormat::kFp8 : ActFormat::kInt8),
          row(lane >> 3),
          chunk(lane & 7),
          first_chunk(row * kBoxBytes + (chunk ^ row) * 16),
          first_box(rank * tile.block_boxes),
          boxes(boxes_of_warp()),
          ring(shared, tile, warp),
          exchange(shared, tile),
          down(arguments, shared, rank, warp, lane) {}

    DEVICE void run() {
        const int first_group = int(blockIdx.x) / Tile::kBlocks;
        ring.start();
        if (threadIdx.x == 0) exchange.start();
        next = {first_group, 0};
        if (lane == 0)
            for (int slot = 0; slot < tile.slots; ++slot) copy_next(slot);
        prepare_columns();
        int group = first_group;
        ROLLED
        for (; group < tile.groups; group += tile.clusters, ++exchange.count) {
            const bool follows = quantize.rank && group != first_group;
            record_peaks();
            ptx::barrier();
            if (threadIdx.x == 0) exchange.expect(Tile::kBlocks * tile.rows * 4 + (follows ? down.sent_bytes() : 0));
            send_peaks();
            // While what was sent is on its way.
            if (quantize.rank) down.multiply(ring, boxes, column_warp);
            exchange.receive();
            find_scales(group);
            if (follows) finish_sums(group - tile.clusters);
            if (quantize.rank) down.send(exchange);
            ptx::barrier();
            quantize_rows(group);
            ring.advance(boxes);
        }
        if (!quantize.rank) return;
        if (threadIdx.x == 0) exchange.expect(down.sent_bytes());
        exchange.receive();
        finish_sums(group - tile.clusters);
    }

private:
    struct Next {
        int group, box;
    };
    Next next;  // to be copied, of the warp's boxes

    DEVICE int boxes_of_warp() const {
        const int all = (quantize.columns + Tile::kBoxColumns - 1) / Tile::kBoxColumns - first_box;
        const int here = all < tile.block_boxes ? all : tile.block_boxes;
        return here > column_warp ? (here - column_warp + tile.column_warps - 1) / tile.column_warps : 0;
    }

    DEVICE int box_in_block(int box) const { return column_warp + box * tile.column_warps; }
    DEVICE int column(int box) const { return (first_box + box_in_block(box)) * Tile::kBoxColumns + kChunk * chunk; }
    DEVICE int row_in_group(int slot) const { return row_tile * Tile::kBoxRows + 4 * slot + row; }

    // By one thread.
    DEVICE void copy_next(int slot) {
        if (next.group >= tile.groups || !boxes) return;
        const int x_row = next.group * tile.rows + row_tile * Tile::kBoxRows;
        const int x_byte = (first_box + box_in_block(next.box)) * kBoxBytes;
        ptx::mbarrier_arrive_expecting(ring.filled(slot), Tile::kSlotBytes);
        ptx::copy_box(ring.box(slot), &arguments.x, x_byte, x_row, ring.filled(slot));
        if (++next.box < boxes) return;
        next = {next.group + tile.clusters, 0};
    }

    // Whether some column's quotients are not exact by its reciprocals.
    DEVICE uint32_t* odd_columns() const { return reinterpret_cast<uint32_t*>(exchange.barriers + 2); }
    DEVICE SharedReciprocals reciprocals() const { return {reinterpret_cast<float*>(shared + tile.reciprocals_offset)}; }

    DEVICE float smooth_of(int column) const {
        if (!quantize.smooth || column >= quantize.columns) return 1.0f;
        return ptx::to_float(ptx::load_readonly(static_cast<const T*>(quantize.smooth) + column));
    }

    DEVICE void prepare_columns() {
        if (threadIdx.x == 0) ptx::store_shared(odd_columns(), 0u);
        ptx::barrier();
        const int columns = tile.block_boxes * Tile::kBoxColumns;
        if (quantize.rank) down.copy(rank * columns, columns);
        for (int i = int(threadIdx.x); i < columns; i += int(blockDim.x)) {
            const float smooth = smooth_of(rank * columns + i);
            reciprocals().store(i, ReciprocalPair(smooth));
            if (!exact_smooth(smooth)) ptx::store_shared(odd_columns(), 1u);
        }
        ptx::cp_async_wait<0>();
        // No block may be written to before it has begun.
        ptx::cluster_barrier();
        exact_columns = !ptx::load_shared<uint32_t>(odd_columns());
    }

    DEVICE const uint8_t* chunk_of(int box, int slot) const {
        return ring.box(ring.slot(box)) + slot * 4 * kBoxBytes + (slot % 2 ? first_chunk ^ 64 : first_chunk);
    }

    // values[index] = value, for an index that is not known before: registers cannot be indexed.
    template <class Value, int kCount>
    DEVICE static void replace(Value (&values)[kCount], int index, Value value) {
        UNROLL
        for (int i = 0; i < kCount; ++i) values[i] = i == index ? value : values[i];
    }

    // Of the columns of this thread; the exact values where reciprocals do not give them.
    DEVICE void values_slowly(int box, int slot, float (&values)[kChunk]) const {
        const auto* x = reinterpret_cast<const T*>(chunk_of(box, slot));
        ROLLED
        for (int i = 0; i < kChunk; ++i) {
            const float value = ptx::divide(ptx::to_float(ptx::load_shared<T>(x + i)), smooth_of(column(box) + i));
            replace(values, i, value);
        }
    }

    DEVICE uint32_t peak_slowly(int slot) const {
        uint32_t peak = 0;
        ROLLED
        for (int box = 0; box < boxes; ++box) {
            float values[kChunk];
            values_slowly(box, slot, values);
            UNROLL
            for (float value : values) peak = larger(peak, ptx::float_bits(value) & 0x7fffffffu);
        }
        return peak;
    }

    DEVICE uint32_t* peaks_of_warps(int of_column_warp) const {
        return reinterpret_cast<uint32_t*>(shared + tile.peaks_offset) + of_column_warp * tile.rows;
    }

    DEVICE uint32_t* peaks_of_block(int block) const {
        return peaks_of_warps(tile.column_warps + exchange.buffer() * Tile::kBlocks + block);
    }

    DEVICE void record_peaks() {
        float peak[kSlots] = {};
        ROLLED
        for (int box = 0; box < boxes; ++box) {
            ptx::mbarrier_wait(ring.filled(ring.slot(box)), ring.parity(box));
            const ChunkReciprocals columns(reciprocals(), box_in_block(box), chunk);
            UNROLL
            for (int slot = 0; slot < kSlots; ++slot) {
                float values[kChunk];
                columns.template apply<T>(ptx::load_shared<Words4>(chunk_of(box, slot)), values);
                UNROLL
                for (float value : values) peak[slot] = ptx::larger_magnitude(peak[slot], value);
            }
        }
        uint32_t bits[kSlots];
        bool exact = exact_columns;
        UNROLL
        for (int slot = 0; slot < kSlots; ++slot) {
            bits[slot] = ptx::float_bits(peak[slot]);
            exact = exact && exact_peak(bits[slot]);
        }
        if (!exact) {
            ROLLED
            for (int slot = 0; slot < kSlots; ++slot) replace(bits, slot, peak_slowly(slot));
        }
        UNROLL
        for (int mask = 1; mask < 8; mask *= 2)
            UNROLL
            for (uint32_t& peak_bits : bits) peak_bits = larger(peak_bits, ptx::shuffle_xor(peak_bits, mask));
        if (chunk != 0) return;
        UNROLL
        for (int slot = 0; slot < kSlots; ++slot)
            ptx::store_shared(peaks_of_warps(column_warp) + row_in_group(slot), bits[slot]);
    }

    // The block's peaks, to every block of the cluster: four rows by each of a few threads.
    DEVICE void send_peaks() const {
        const int own = 4 * int(threadIdx.x);
        if (own >= tile.rows) return;
        uint32_t peak[4] = {};
        ROLLED
        for (int other = 0; other < tile.column_warps; ++other) {
            uint32_t words[4];
            split(ptx::load_shared<Words4>(peaks_of_warps(other) + own), words);
            UNROLL
            for (int i = 0; i < 4; ++i) peak[i] = larger(peak[i], words[i]);
        }
        const Words4 words = {peak[0], peak[1], peak[2], peak[3]};
        ROLLED
        for (uint32_t block = 0; block < Tile::kBlocks; ++block)
            ptx::send_to(block, peaks_of_block(rank) + own, words, exchange.barrier());
    }

    // The reciprocal of a row's scale, whose first part is 0 where it does not give the codes, and behind all of them the scales.
    DEVICE float* reciprocal_of(int row_of_group) const {
        return reinterpret_cast<float*>(shared + tile.scales_offset) + 2 * row_of_group;
    }
    DEVICE float* scale_of(int row_of_group) const { return reciprocal_of(tile.rows) + row_of_group; }

    // Those of all rows, by as many threads.
    DEVICE void find_scales(int group) const {
        const int own = int(threadIdx.x), x_row = group * tile.rows + own;
        if (own >= tile.rows) return;
        uint32_t peak = 0;
        const uint32_t* place = peaks_of_block(0) + own;
        UNROLL
        for (int block = 0; block < Tile::kBlocks; ++block, place += tile.rows)
            peak = larger(peak, ptx::load_shared<uint32_t>(place));
        const float scale = scale_from_peak<float>(ptx::bits_float(peak), format);
        if (rank == 0 && x_row < quantize.padded_rows)
            ptx::store(static_cast<float*>(quantize.ascales) + x_row, x_row < quantize.rows ? scale : 1.0f);
        const ReciprocalPair pair(scale);
        const bool exact = exact_columns && exact_peak(peak) && exact_scale(scale);
        ptx::store_shared(reciprocal_of(own), Words2{exact ? ptx::float_bits(pair.most) : 0u, ptx::float_bits(pair.rest)});
        ptx::store_shared(scale_of(own), scale);
    }

    // Above all by threads that find no scales.
    DEVICE void finish_sums(int group) const {
        const unsigned first = unsigned(tile.rows) % blockDim.x, thread = threadIdx.x;
        down.finish(exchange, group, thread >= first ? thread - first : thread + blockDim.x - first, blockDim.x);
    }

    DEVICE void quantize_rows(int group) {
        float most[kSlots], rest[kSlots];
        bool exact = true;
        UNROLL
        for (int slot = 0; slot < kSlots; ++slot) {
            const Words2 pair = ptx::load_shared<Words2>(reciprocal_of(row_in_group(slot)));
            most[slot] = ptx::bits_float(pair.x), rest[slot] = ptx::bits_float(pair.y);
            exact = exact && most[slot] != 0;
        }
        const int x_row = group * tile.rows + row_in_group(0);
        ROLLED
        for (int box = 0; box < boxes; ++box) {
            const ChunkReciprocals columns(reciprocals(), box_in_block(box), chunk);
            const int rows = column(box) < quantize.columns ? quantize.rows - x_row : 0;
            auto* codes = static_cast<uint8_t*>(quantize.qx) + size_t(x_row) * quantize.columns + column(box);
            UNROLL
            for (int slot = 0; slot < kSlots; ++slot) {
                float values[kChunk];
                columns.template apply<T>(ptx::load_shared<Words4>(chunk_of(box, slot)), values);
                UNROLL
                for (float& value : values) value = quotient_by_pair(value, most[slot], rest[slot]);
                uint32_t words[2] = {};
                round_run(values, format, words);
                if (4 * slot < rows) store_codes(codes, slot, words);
            }
            if (!exact) quantize_slowly(box, rows, codes);
            // The slot is filled again once all of the warp have read it.
            ptx::warp_sync();
            if (lane == 0) copy_next(ring.slot(box));
        }
    }

    DEVICE void store_codes(uint8_t* codes, int slot, const uint32_t (&words)[2]) const {
        ptx::store(reinterpret_cast<Words2*>(codes + size_t(4 * slot) * quantize.columns), Words2{words[0], words[1]});
    }

    // Over the codes of rows that reciprocals did not give.
    DEVICE void quantize_slowly(int box, int rows, uint8_t* codes) const {
        ROLLED
        for (int slot = 0; slot < kSlots && 4 * slot < rows; ++slot) {
            if (ptx::load_shared<float>(reciprocal_of(row_in_group(slot))) != 0) continue;
            float values[kChunk];
            uint32_t words[2];
            values_slowly(box, slot, values);
            quantize_run(values, format, 0.0f, ptx::load_shared<float>(scale_of(row_in_group(slot))), words);
            store_codes(codes, slot, words);
        }
    }
};

}  // namespace halfbyte
