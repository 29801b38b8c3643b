#include "optional_run.h"
#include "quantize_host.h"
#include "quantize_rows.h"
#include "row_statistics.h"

namespace halfbyte {

// x normalized over its row and modulated, rounded to T.
template <class T>
struct NormRows {
    static constexpr bool kTransforms = true;
    static constexpr int kStatistics = 2;

    const NormArguments& arguments;
    int columns;
    float* statistics = nullptr;  // shared [2][rows of the block]: mean, 1 / standard deviation

    DEVICE NormRows(const NormArguments& arguments, int columns) : arguments(arguments), columns(columns) {}

    // The mean comes first and the variance from what is left: squares of x alone would lose it where the mean is large.
    template <int kSlots>
    DEVICE void prepare(RowBlock<T, kSlots>& block, float* shared) {
        statistics = shared;
        float* scratch = shared + kStatistics * block.kRows;
        float mean[kSlots] = {};
        if (arguments.centred) {
            sum_of_rows(block, scratch, mean, [](float x, float) { return x; });
            UNROLL
            for (int slot = 0; slot < kSlots; ++slot) mean[slot] = ptx::divide(mean[slot], float(columns));
        }
        float variance[kSlots];
        UNROLL
        for (int slot = 0; slot < kSlots; ++slot) variance[slot] = mean[slot];
        sum_of_rows(block, scratch, variance, [](float x, float mean) { return (x - mean) * (x - mean); });
        UNROLL
        for (int slot = 0; slot < kSlots; ++slot) {
            if (block.warp != 0 || block.q != 0) continue;
            ptx::store_shared(statistics + block.row_in_block(slot), mean[slot]);
            float deviation = ptx::sqrt(ptx::divide(variance[slot], float(columns)) + arguments.eps);
            ptx::store_shared(statistics + block.kRows + block.row_in_block(slot), ptx::reciprocal(deviation));
        }
        ptx::barrier();
    }

    struct Columns {
        const NormRows& rows;
        int column;
        OptionalRun<T> weight, bias;
        OptionalRowRun<T> mod_scale, mod_shift;

        DEVICE Columns(const NormRows& rows, int column)
            : rows(rows), column(column), weight(rows.arguments.weight, column), bias(rows.arguments.bias, column),
              mod_scale(rows.arguments.mod_scale, rows.arguments.rows_per_scale),
              mod_shift(rows.arguments.mod_shift, rows.arguments.rows_per_shift) {}

        template <class Block>
        DEVICE void transform(const Block& block, int slot, uint32_t (&x)[8]) {
            mod_scale.load(block.row(slot), rows.columns, column);
            mod_shift.load(block.row(slot), rows.columns, column);
            const float mean = ptx::load_shared<float>(rows.statistics + block.row_in_block(slot));
            const float factor = ptx::load_shared<float>(rows.statistics + block.kRows + block.row_in_block(slot));
            float values[kRun];
            unpack_run<T>(x, values);
            UNROLL
            for (int i = 0; i < kRun; ++i) values[i] = (values[i] - mean) * factor;
            weight.apply(values, [](float value, float weight) { return value * weight; });
            bias.apply(values, [](float value, float bias) { return value + bias; });
            mod_scale.run.apply(values, [](float value, float scale) { return value * (1 + scale); });
            mod_shift.run.apply(values, [](float value, float shift) { return value + shift; });
            pack_run<T>(values, x);
        }
    };
};

struct NormQuantizeArguments {
    QuantizeArguments quantize;
    NormArguments norm;
};

template <class T, int kRowTiles>
KERNEL void LAUNCH_BOUNDS(32 * most_warps(16 * kRowTiles), blocks_at_once(16 * kRowTiles))
    norm_quantize_kernel(const NormQuantizeArguments arguments) {
    SHARED_MEMORY(shared);
    const NormRows<T> rows(arguments.norm, arguments.quantize.columns);
    QuantizeRows<T, kRowTiles, NormRows<T>>(arguments.quantize, rows, shared).run();
}

void norm_quantize(QuantizeArguments arguments, const NormArguments& norm, Dtype dtype, Stream stream) {
    check_quantize(arguments, dtype);
    expect_aligned(16, {{"weight", norm.weight, true},
                        {"bias", norm.bias, true},
                        {"mod_scale", norm.mod_scale, true},
                        {"mod_shift", norm.mod_shift, true}});
    expect_positive("rows per row of mod_scale", norm.rows_per_scale);
    expect_positive("rows per row of mod_shift", norm.rows_per_shift);
    arguments.tile = choose_quantize_tile(quantize_sizes(arguments, true));
    with_tile(arguments.tile, dtype, [&](auto type, auto row_tiles) {
        using T = typename decltype(type)::Type;
        launch_rows(norm_quantize_kernel<T, row_tiles.value>, "norm_quantize", arguments.tile, stream,
                    NormQuantizeArguments{arguments, norm});
    });
}

}  // namespace halfbyte
