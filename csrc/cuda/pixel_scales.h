// Group scales of the pixels that a convolution's rows are copied from. They stand anywhere, two bytes each, so they go through
// registers: read in one step, put into their stage in the next.
#pragma once

#include "group_scales.h"
#include "pixel_rows.h"

namespace halfbyte {

// The thread that copies the first chunk of a group of a row reads its scale.
template <class Tile, class T>
struct PixelScales {
    using Layout = GroupScaleLayout<Tile>;
    static constexpr int kChunksPerGroup = kGroupBytes / 16, kWeightThreads = kGroupsPerStep * Layout::kWeightChunks;
    static_assert(kWeightThreads <= Tile::kThreads, "one chunk of scales a thread");
    static_assert(Tile::kStages >= 3, "scales arrive a step later than codes");

    const ConvArguments& arguments;
    const PixelRows<Tile>& rows;
    int steps_left;  // that this thread reads scales in
    T read[Tile::kPassesA];
    uint8_t* target;  // of what was read
    bool waiting = false;
    ScaleChunk<T> weight;

    DEVICE PixelScales(const ConvArguments& arguments, const Place<Tile>&, const Columns<Tile>& columns, const PixelRows<Tile>& rows)
        : arguments(arguments),
          rows(rows),
          steps_left(rows.chunk % kChunksPerGroup ? 0 : (arguments.row_bytes + kStepBytes - 1) / kStepBytes),
          weight(weight_chunk(arguments, columns, int(threadIdx.x))) {}

    DEVICE static ScaleChunk<T> weight_chunk(const ConvArguments& arguments, const Columns<Tile>& columns, int thread) {
        const int column = columns.of(8 * (thread % Layout::kWeightChunks));
        return {arguments.wscales, arguments.row_bytes / kGroupBytes, arguments.n, thread / Layout::kWeightChunks, column, column >= 0};
    }

    DEVICE void copy(uint8_t* scales) {
        if (int(threadIdx.x) < kWeightThreads) weight.copy(scales + Layout::kWeightOffset + threadIdx.x * 16);
        if (waiting) put();
        waiting = steps_left > 0;
        if (!waiting) return;
        --steps_left;
        target = scales + rows.chunk / kChunksPerGroup * Layout::kActBytes + 2 * rows.row_of(0);
        const TapCursor& cursor = rows.cursor;
        const int group = cursor.part / kGroupBytes;
        const T* at_tap = static_cast<const T*>(arguments.ascales) + cursor.shift;
        at_tap = ptx::row_at(at_tap, group, 2 * arguments.padded_m);
        UNROLL
        for (int pass = 0; pass < Tile::kPassesA; ++pass) {
            const Window& window = rows.windows[pass];
            read[pass] = window.has(cursor) ? ptx::load_readonly(ptx::row_at(at_tap, window.first, 2)) : T{0};
        }
    }

    DEVICE void put() const {
        UNROLL
        for (int pass = 0; pass < Tile::kPassesA; ++pass) ptx::store_shared(target + 2 * pass * Tile::kRowsPerPass, read[pass]);
    }
};

}  // namespace halfbyte
