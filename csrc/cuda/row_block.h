// The rows of one thread block: which values each thread holds, and how they come from global memory.
#pragma once

#include "packed_run.h"
#include "quantize_tile.h"

namespace halfbyte {

// Columns are read in units of 64 within a segment, unit u by warp u % warps. In a unit, thread (g, q) = (lane / 4, lane % 4)
// holds columns 16q..16q+15 of rows g, g + 8, ..: its slots. It copies them into shared memory that no other thread touches, so
// nothing here needs a barrier.
template <class T, int kSlots>
struct RowBlock {
    static constexpr int kRows = 8 * kSlots;
    static constexpr int kUnitBytes = kRows * 128;
    static constexpr int kAhead = units_streamed(kRows) - 1;  // units under way while one is worked on

    const T* x;
    int rows, columns, first_row;
    QuantizeTile tile;
    uint8_t* shared;
    int warp, g, q;
    bool loaded = false;  // whole rows, and they stay

    DEVICE RowBlock(const T* x, int rows, int columns, const QuantizeTile& tile, uint8_t* shared)
        : x(x), rows(rows), columns(columns), first_row(int(blockIdx.x) * kRows), tile(tile), shared(shared),
          warp(int(threadIdx.x) / 32), g(int(threadIdx.x) % 32 / 4), q(int(threadIdx.x) % 4) {}

    DEVICE int row_in_block(int slot) const { return 8 * slot + g; }
    DEVICE int row(int slot) const { return first_row + row_in_block(slot); }
    DEVICE bool has_row(int slot) const { return row(slot) < rows; }

    DEVICE int segment(int unit) const { return unit / tile.units_per_segment; }
    DEVICE int unit_in_segment(int unit) const { return unit % tile.units_per_segment; }
    DEVICE int column(int unit) const { return segment(unit) * tile.segment_columns + unit_in_segment(unit) * 64 + 16 * q; }
    DEVICE bool has_columns(int unit) const { return unit_in_segment(unit) * 64 + 16 * q < tile.segment_columns; }

    // Columns 16q + 8 half.. of the warp's unit number `step`.
    DEVICE uint8_t* held(int step, int slot, int half) const {
        int place = warp * tile.units_held + step % tile.units_held;
        return shared + place * kUnitBytes + (slot * 2 + half) * 512 + (g * 4 + q) * 16;
    }

    DEVICE void load_held(int step, int slot, uint32_t (&words)[8]) const {
        UNROLL
        for (int half = 0; half < 2; ++half) split(ptx::load_shared<Words4>(held(step, slot, half)), words + 4 * half);
    }

    DEVICE uint32_t held_word(int step, int slot, int i) const {
        return ptx::load_shared<uint32_t>(held(step, slot, i / 4) + i % 4 * 4);
    }

    DEVICE void store_held(int step, int slot, const uint32_t (&words)[8]) const {
        UNROLL
        for (int half = 0; half < 2; ++half)
            ptx::store_shared(held(step, slot, half),
                              Words4{words[4 * half], words[4 * half + 1], words[4 * half + 2], words[4 * half + 3]});
    }

    DEVICE void fetch(int step) const {
        int unit = warp + step * tile.warps;
        if (unit < tile.units) {
            bool valid = has_columns(unit);
            const T* source = x + column(unit);
            UNROLL
            for (int slot = 0; slot < kSlots; ++slot) {
                bool inside = valid && has_row(slot);
                const T* values = inside ? source + size_t(row(slot)) * columns : x;
                ptx::cp_async_16(held(step, slot, 0), values, inside);
                ptx::cp_async_16(held(step, slot, 1), inside ? values + 8 : x, inside);
            }
        }
        ptx::cp_async_commit();
    }

    // act(step, unit) for the warp's units, their values held.
    template <class Act>
    DEVICE void for_each_unit(Act act) {
        if (!loaded)
            for (int step = 0; step < kAhead; ++step) fetch(step);
        for (int step = 0, unit = warp; unit < tile.units; ++step, unit += tile.warps) {
            if (!loaded) {
                fetch(step + kAhead);
                ptx::cp_async_wait<kAhead>();
            }
            act(step, unit);
        }
        loaded = tile.holds_rows;
    }
};

}  // namespace halfbyte
