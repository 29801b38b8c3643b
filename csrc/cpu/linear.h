// A whole linear layer, block by block of rows: quantize, project down, multiply, add the branch and the bias, round.
#pragma once

#include "block.h"
#include "quantize_row.h"

namespace halfbyte {
namespace {

template <class Isa>
struct Plan {
    static constexpr int kColumns = Layout<Isa>::kColumns;

    const Linear& work;
    Layout<Isa> layout;
    int64_t tiles, block_tiles;
    int64_t act_bytes, low_bytes, low_columns;
    Partition partition;

    Plan(const Linear& given, int threads) : work(given), layout(given.shape) {
        tiles = round_up(work.m, Isa::kRows) / Isa::kRows;
        act_bytes = round_up(layout.steps, kStepsPerChunk) / kStepsPerChunk * Isa::kRows * kChunk;
        low_bytes = round_up(layout.low_steps, kStepsPerChunk) / kStepsPerChunk * Isa::kRows * kChunk;
        low_columns = round_up(layout.down_panels * kColumns, kChunk / 2);
        block_tiles = tiles_of_block(act_bytes, tiles);
        partition = choose_partition(tiles, layout.panels, work.m * work.shape.n * work.shape.k, threads);
    }
};

// This thread's memory for one block.
template <class Isa>
struct Scratch {
    uint8_t *act, *low_rank_act;
    float *ascales, *y, *inverse_smooth, *bias, *wide, *sums;

    explicit Scratch(const Plan<Isa>& plan) {
        const WeightShape& shape = plan.work.shape;
        const int64_t k = round_up(shape.k, kChunk);
        const int64_t sizes[] = {
            plan.block_tiles * plan.act_bytes, plan.block_tiles * plan.low_bytes, plan.block_tiles * Isa::kRows * 4, kRowsTogether * k * 4, k * 4,
            plan.layout.panels * plan.kColumns * 4, Isa::kDownRows * k * 4, Isa::kDownRows * plan.low_columns * 4};
        int64_t bytes = 0;
        for (const int64_t size : sizes) bytes += round_up(size, kChunk);
        uint8_t* next = thread_scratch(bytes);
        int i = 0;
        const auto take = [&] {
            uint8_t* taken = next;
            next += round_up(sizes[i++], kChunk);
            return taken;
        };
        act = take();
        low_rank_act = take();
        ascales = reinterpret_cast<float*>(take());
        y = reinterpret_cast<float*>(take());
        inverse_smooth = reinterpret_cast<float*>(take());
        bias = reinterpret_cast<float*>(take());
        wide = reinterpret_cast<float*>(take());
        sums = reinterpret_cast<float*>(take());
    }
};

// One row of codes [K] that the caller has.
template <class Codes>
ALWAYS_INLINE void place_codes(const int8_t* codes, int64_t k, const Codes& out) {
    for (int64_t first = 0; first < k; first += Codes::kCodes) {
        auto* chunk = out.chunk(first / Codes::kCodes);
        const int64_t count = std::min(Codes::kCodes, k - first);
        for (int64_t i = 0; i < count; ++i) chunk[i] = typename Codes::Code(codes[first + i] + Codes::kOffset);
    }
}

// One row of the branch's activations [R], in memory to be read up to whole chunks, into its place in a tile. What pads it must be
// zero, for NaN * 0 is not.
template <class Isa, bool kPairs, bool kRounded>
ALWAYS_INLINE void place_low_rank(const float* values, int64_t rank, uint8_t* row) {
    constexpr int64_t kElement = kPairs ? 2 : 4, kElements = kChunk / kElement;
    for (int64_t first = 0; first < rank; first += kElements, row += Isa::kRows * kChunk) {
        for (int64_t i = 0; i < kElements; ++i) {
            bfloat16 rounded;
            store(&rounded, values[first + i]);
            if (kPairs) {
                reinterpret_cast<bfloat16*>(row)[i] = rounded;
            } else {
                reinterpret_cast<float*>(row)[i] = kRounded ? to_float(rounded) : values[first + i];
            }
        }
        if (rank - first < kElements) __builtin_memset(row + (rank - first) * kElement, 0, size_t((kElements - rank + first) * kElement));
    }
}

// low_rank_act of a block's rows: x itself times proj_down.
template <class Isa, typename T, bool kPairs>
void project_down(const Plan<Isa>& plan, const Scratch<Isa>& scratch, const T* x, int64_t rows) {
    constexpr int kDownRows = Isa::kDownRows, kColumns = Plan<Isa>::kColumns;
    const Layout<Isa>& layout = plan.layout;
    const int64_t k = plan.work.shape.k, rank = plan.work.shape.rank;
    for (int64_t first = 0; first < rows; first += kDownRows) {
        const int64_t count = std::min<int64_t>(kDownRows, rows - first);
        const uint8_t* in[kDownRows];
        for (int64_t i = 0; i < kDownRows; ++i) {
            const T* row = x + (first + std::min(i, count - 1)) * k;
            in[i] = reinterpret_cast<const uint8_t*>(row);
            if (sizeof(T) == 4 || kPairs) continue;
            for (int64_t j = 0; j < k; ++j) scratch.wide[i * k + j] = to_float(row[j]);
            in[i] = reinterpret_cast<const uint8_t*>(scratch.wide + i * k);
        }
        for (int64_t panel = 0; panel < layout.down_panels; ++panel) {
            const uint8_t* down = plan.work.packed + layout.down + panel * layout.down_bytes;
            down_tile<Isa, kPairs, kDownRows>(in, down, layout.down_steps, scratch.sums + panel * kColumns, plan.low_columns);
        }
        for (int64_t i = 0; i < count; ++i)
            place_low_rank<Isa, kPairs, sizeof(T) == 2>(
                scratch.sums + i * plan.low_columns, rank, row_of<Isa>(scratch.low_rank_act, plan.low_bytes, first + i));
    }
}

// The activations of a block of rows, T being x's and the branch's type.
template <class Isa, typename T, bool kPairs>
void fill_block(const Plan<Isa>& plan, const Scratch<Isa>& scratch, int64_t first, int64_t rows) {
    const Linear& work = plan.work;
    const int64_t k = work.shape.k, rank = work.shape.rank;
    using Codes = CodeRow<typename Isa::Code, Isa::kCodeOffset>;
    const T* x = static_cast<const T*>(work.x) + (work.x ? first * k : 0);
    const auto codes = [&](int64_t row) { return Codes{row_of<Isa>(scratch.act, plan.act_bytes, row), Isa::kRows * kChunk}; };
    for (int64_t row = 0; row < rows; row += kRowsTogether) {
        const int count = int(std::min<int64_t>(kRowsTogether, rows - row));
        if (work.x) {
            quantize_rows<Isa::kFma>(
                x + row * k, work.smooth, scratch.inverse_smooth, 0.0f, scratch.y, k, count, scratch.ascales + row,
                [&](int i) { return codes(row + i); });
            continue;
        }
        for (int64_t i = row; i < row + count; ++i) {
            scratch.ascales[i] = work.ascales[first + i];
            place_codes(work.qx + (first + i) * k, k, codes(i));
        }
    }
    if (!rank) return;
    if (work.x) return project_down<Isa, T, kPairs>(plan, scratch, x, rows);
    const T* low_rank_act = static_cast<const T*>(work.low_rank_act) + first * rank;
    for (int64_t row = 0; row < rows; ++row, low_rank_act += rank) {
        for (int64_t i = 0; i < rank; ++i) scratch.sums[i] = to_float(low_rank_act[i]);
        place_low_rank<Isa, kPairs, sizeof(T) == 2>(scratch.sums, rank, row_of<Isa>(scratch.low_rank_act, plan.low_bytes, row));
    }
}

template <class Isa, typename T, bool kPairs>
void linear_part(const void* context, int part) {
    const Plan<Isa>& plan = *static_cast<const Plan<Isa>*>(context);
    const Partition split = plan.partition;
    const int row_part = part / split.column_parts, column_part = part % split.column_parts;
    const int64_t tile = plan.tiles * row_part / split.row_parts, last_tile = plan.tiles * (row_part + 1) / split.row_parts;
    const int64_t panel = plan.layout.panels * column_part / split.column_parts;
    const int64_t last_panel = plan.layout.panels * (column_part + 1) / split.column_parts;
    const Scratch<Isa> scratch(plan);
    invert(plan.work.smooth, scratch.inverse_smooth, plan.work.shape.k);
    const Linear& work = plan.work;
    fill_bias(work.bias, work.bias_bf16, work.shape.n, scratch.bias);
    const Product<Isa> product{plan.layout, work.shape, work.packed, work.bias ? scratch.bias : nullptr, work.out_bf16};
    const int64_t row_bytes = work.shape.n * product.element();
    for (int64_t block = tile; block < last_tile; block += plan.block_tiles) {
        const int64_t first = block * Isa::kRows;
        const int64_t rows = std::min(std::min(last_tile, block + plan.block_tiles) * Isa::kRows, plan.work.m) - first;
        fill_block<Isa, T, kPairs>(plan, scratch, first, rows);
        const Block codes{scratch.act, plan.act_bytes, scratch.ascales, scratch.low_rank_act, plan.low_bytes, rows};
        multiply_block<Isa, kPairs>(product, codes, panel, last_panel, static_cast<uint8_t*>(work.out) + first * row_bytes);
    }
}

template <class Isa>
void linear(const Linear& work, int threads) {
    if (!work.m || !work.shape.n) return;
    const Plan<Isa> plan(work, threads);
    const auto run = work.shape.bf16 ? linear_part<Isa, bfloat16, Isa::kBf16Dot> : linear_part<Isa, float, false>;
    parallel_parts(plan.partition.row_parts * plan.partition.column_parts, threads, run, &plan);
}

}  // namespace
}  // namespace halfbyte
