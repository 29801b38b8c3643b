// Quantizes a block of rows and projects them down, from one read of x where the tile holds whole rows.
#pragma once

#include "low_rank_down.h"
#include "smooth_columns.h"

namespace halfbyte {

// Rows that are quantized as they are. Another source may read all rows in prepare(), keeping kStatistics floats for each in
// shared memory; its Columns, for 16 columns, put what stands for x into the held values.
struct RawRows {
    static constexpr bool kTransforms = false;
    static constexpr int kStatistics = 0;

    template <class Block>
    DEVICE void prepare(Block&, float*) {}

    struct Columns {
        DEVICE Columns(const RawRows&, int) {}
        template <class Block>
        DEVICE void transform(const Block&, int, uint32_t (&)[8]) {}
    };
};

template <class T, int kRowTiles, class Source>
struct QuantizeRows {
    static constexpr int kSlots = 2 * kRowTiles;

    const QuantizeArguments& arguments;
    Source source;
    RowBlock<T, kSlots> block;
    float* statistics;  // after the held values
    float* peaks;

    DEVICE QuantizeRows(const QuantizeArguments& arguments, const Source& source, uint8_t* shared)
        : arguments(arguments), source(source),
          block(static_cast<const T*>(arguments.x), arguments.rows, arguments.columns, arguments.tile, shared),
          statistics(reinterpret_cast<float*>(shared + arguments.tile.values_bytes)),
          peaks(statistics + Source::kStatistics * block.kRows) {}

    // In each pass 32 ranks are projected, as long as there are some; 8-bit codes need a pass for the peaks before their own.
    DEVICE void run() {
        source.prepare(block, statistics);
        LowRankDown<T, kRowTiles> down(arguments.proj_down, arguments.low_rank_act, arguments.rank);
        const int quantize_pass = arguments.tile.four_bits ? 0 : 1;
        ROLLED
        for (int pass = 0; pass < arguments.tile.passes; ++pass) {
            const int first_rank = 32 * pass;
            const Work work = pass < quantize_pass ? kFindPeaks : pass == quantize_pass ? kQuantize : kNothing;
            block.for_each_unit([&](int step, int unit) {
                work_on(step, unit, work);
                if (first_rank < arguments.rank) down.add(block, step, unit, first_rank);
            });
            transformed = block.loaded;
            ptx::barrier();
            if (work == kFindPeaks) find_scales();
            // The sums take the held rows' place, so they wait until nothing reads those; with more than 32 ranks none are held.
            const bool summed = block.loaded ? pass == arguments.tile.passes - 1 : first_rank < arguments.rank;
            if (summed && arguments.rank > 0)
                down.finish(block, reinterpret_cast<float*>(block.shared), block.loaded ? 0 : first_rank);
            ptx::barrier();
        }
    }

private:
    static constexpr uint32_t kNvfp4Ones = 0x38383838;

    enum Work { kFindPeaks, kQuantize, kNothing };

    bool transformed = false;  // the held rows are

    DEVICE void work_on(int step, int unit, Work work) {
        const ActFormat format = arguments.format;
        const int column = block.column(unit);
        const bool has_columns = block.has_columns(unit);
        if (Source::kTransforms && !transformed && has_columns) transform(step, column);
        if (work == kNothing) return;
        SmoothColumns<T> smooth(arguments.smooth);
        smooth.load(has_columns ? column : 0);
        // Of a unit's four-bit groups, 1 where a row is padding. int4: T's bits, of the row in slot q; nvfp4: of this thread's
        // columns, a byte for each slot.
        uint32_t own_scales = arguments.tile.four_bits && format > ActFormat::kUint4 ? kNvfp4Ones : ptx::from_float<T>(1.0f).bits;
        ROLLED
        for (int slot = 0; slot < kSlots; ++slot) {
            float values[kRun];
            uint32_t peak = values_of(smooth, step, slot, values);
            if (!has_columns) peak = 0;
            if (format <= ActFormat::kUint4 || work == kFindPeaks) {
                peak = larger(peak, ptx::shuffle_xor(peak, 1));
                peak = larger(peak, ptx::shuffle_xor(peak, 2));
            }
            if (work == kFindPeaks) {
                if (block.q == 0) record_peak(unit, slot, peak);
                continue;
            }
            if (!has_columns || !block.has_row(slot)) continue;
            uint32_t words[4] = {};
            if (format == ActFormat::kNvfp4 || format == ActFormat::kNvfp4FourOverSix) {
                Nvfp4Block quantized = quantize_nvfp4(values, ptx::bits_float(peak), format == ActFormat::kNvfp4FourOverSix);
                words[0] = quantized.words[0], words[1] = quantized.words[1];
                own_scales ^= (0x38u ^ quantized.scale) << (8 * slot);
            } else {
                float group_peak = ptx::bits_float(peak), scale;
                if (arguments.tile.four_bits) {
                    scale = scale_from_peak<T>(group_peak, format);
                    if (slot == block.q) own_scales = ptx::from_float<T>(scale).bits;
                } else {
                    scale = ptx::load_shared<float>(peak_place(block.segment(unit), 0, block.row_in_block(slot)));
                    group_peak = 0;
                }
                quantize_run(values, format, group_peak, scale, words);
            }
            store_codes(slot, column, words);
        }
        if (work != kQuantize) return;
        if (format <= ActFormat::kUint4)
            store_int4_scales(unit, T{uint16_t(own_scales)});
        else if (arguments.tile.four_bits)
            store_nvfp4_scales(unit, own_scales);
    }

    DEVICE void transform(int step, int column) {
        typename Source::Columns columns(source, column);
        ROLLED
        for (int slot = 0; slot < kSlots; ++slot) {
            if (!block.has_row(slot)) continue;
            uint32_t x[8];
            block.load_held(step, slot, x);
            columns.transform(block, slot, x);
            block.store_held(step, slot, x);
        }
    }

    DEVICE uint32_t values_of(const SmoothColumns<T>& smooth, int step, int slot, float (&values)[kRun]) {
        uint32_t x[8];
        block.load_held(step, slot, x);
        unpack_run<T>(x, values);
        uint32_t peak = smooth.apply(arguments.shift, values, [&](int i) { return block.held_word(step, slot, i); });
        if (arguments.format != ActFormat::kUint4) return peak;
        UNROLL
        for (int i = 0; i < kRun; ++i) values[i] = values[i] < 0 ? 0.0f : values[i];
        return peak_bits(values);
    }

    DEVICE void store_codes(int slot, int column, const uint32_t (&words)[4]) const {
        size_t index = size_t(block.row(slot)) * arguments.columns + column;
        auto* qx = static_cast<uint8_t*>(arguments.qx);
        if (arguments.tile.four_bits)
            ptx::store(reinterpret_cast<Words2*>(qx + index / 2), Words2{words[0], words[1]});
        else
            ptx::store(reinterpret_cast<Words4*>(qx + index), Words4{words[0], words[1], words[2], words[3]});
    }

    // Thread q of a row's four stores for slot q, so that scales of neighbouring rows leave in one store of the warp.
    DEVICE bool stores_scale() const { return block.q < kSlots && block.row(block.q) < arguments.padded_rows; }

    DEVICE void store_int4_scales(int unit, T scale) const {
        if (!stores_scale()) return;
        ptx::store(static_cast<T*>(arguments.ascales) + size_t(unit) * arguments.padded_rows + block.row(block.q), scale);
    }

    DEVICE void store_nvfp4_scales(int unit, uint32_t bytes) const {
        for (int i = 0; i < 4; ++i) {
            uint8_t scale = uint8_t(ptx::shuffle(bytes, 4 * block.g + i) >> (8 * block.q));
            int group = 4 * unit + i;
            if (stores_scale() && group < arguments.columns / kRun)
                ptx::store(static_cast<uint8_t*>(arguments.ascales) + size_t(group) * arguments.padded_rows + block.row(block.q),
                           scale);
        }
    }

    DEVICE float* peak_place(int segment, int part, int row_in_block) const {
        return peaks + (segment * arguments.tile.peaks_per_segment + part) * block.kRows + row_in_block;
    }

    // Each part of a segment's peak belongs to one warp: to a unit, or to a warp with several.
    DEVICE void record_peak(int unit, int slot, uint32_t peak) const {
        const int index = block.unit_in_segment(unit), warps = arguments.tile.warps;
        const int part = arguments.tile.units_per_segment > warps ? block.warp : index;
        float* place = peak_place(block.segment(unit), part, block.row_in_block(slot));
        if (index >= warps) peak = larger(peak, ptx::load_shared<uint32_t>(place));
        ptx::store_shared(place, peak);
    }

    DEVICE void find_scales() const {
        const int thread = int(threadIdx.x), row_in_block = thread % block.kRows, row = block.first_row + row_in_block;
        for (int segment = thread / block.kRows; segment < arguments.segments; segment += int(blockDim.x) / block.kRows) {
            uint32_t peak = 0;
            for (int part = 0; part < arguments.tile.peaks_per_segment; ++part)
                peak = larger(peak, ptx::load_shared<uint32_t>(peak_place(segment, part, row_in_block)));
            float scale = scale_from_peak<float>(ptx::bits_float(peak), arguments.format);
            ptx::store_shared(peak_place(segment, 0, row_in_block), scale);
            if (row < arguments.padded_rows)
                ptx::store(static_cast<float*>(arguments.ascales) + size_t(segment) * arguments.padded_rows + row,
                           row < arguments.rows ? scale : 1.0f);
        }
    }
};

}  // namespace halfbyte
