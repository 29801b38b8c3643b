#include "group_norm_statistics.h"
#include "optional_run.h"
#include "quantize_host.h"
#include "quantize_rows.h"

namespace halfbyte {

// Pixels normalized over their group of channels, then SiLU, rounded to T.
template <class T>
struct GroupNormRows {
    static constexpr bool kTransforms = true;
    static constexpr int kStatistics = 0;

    const GroupNormArguments& arguments;
    const GroupNormWorkspace& workspace;

    DEVICE GroupNormRows(const GroupNormArguments& arguments, const GroupNormWorkspace& workspace)
        : arguments(arguments), workspace(workspace) {}

    template <class Block>
    DEVICE void prepare(Block&, float*) {}

    struct Columns {
        const GroupNormRows& rows;
        int column, batch = -1;
        OptionalRun<T> weight, bias;
        uint32_t mean[kRun] = {}, factor[kRun] = {};  // of `batch`

        DEVICE Columns(const GroupNormRows& rows, int column)
            : rows(rows), column(column), weight(rows.arguments.weight, column), bias(rows.arguments.bias, column) {}

        template <class Block>
        DEVICE void transform(const Block& block, int slot, uint32_t (&x)[8]) {
            if (block.row(slot) / rows.arguments.pixels != batch) {
                batch = block.row(slot) / rows.arguments.pixels;
                const size_t place = size_t(batch) * block.columns + column;
                load_words(rows.workspace.mean + place, mean);
                load_words(rows.workspace.factor + place, factor);
            }
            float values[kRun];
            unpack_run<T>(x, values);
            UNROLL
            for (int i = 0; i < kRun; ++i) values[i] = (values[i] - ptx::bits_float(mean[i])) * ptx::bits_float(factor[i]);
            weight.apply(values, [](float value, float weight) { return value * weight; });
            bias.apply(values, [](float value, float bias) { return value + bias; });
            if (rows.arguments.silu) {
                UNROLL
                for (int i = 0; i < kRun; ++i) values[i] = ptx::divide(values[i], 1 + ptx::exp(-values[i]));
            }
            pack_run<T>(values, x);
        }
    };
};

struct GroupNormQuantizeArguments {
    QuantizeArguments quantize;
    GroupNormArguments norm;
    GroupNormWorkspace workspace;
};

template <class T, int kRowTiles>
KERNEL void LAUNCH_BOUNDS(32 * most_warps(16 * kRowTiles), blocks_at_once(16 * kRowTiles))
    group_norm_quantize_kernel(const GroupNormQuantizeArguments arguments) {
    SHARED_MEMORY(shared);
    const GroupNormRows<T> rows(arguments.norm, arguments.workspace);
    QuantizeRows<T, kRowTiles, GroupNormRows<T>>(arguments.quantize, rows, shared).run();
}

void group_norm_quantize(QuantizeArguments arguments, const GroupNormArguments& norm, Dtype dtype, Stream stream) {
    check_quantize(arguments, dtype);
    expect_aligned(16, {{"weight", norm.weight, true}, {"bias", norm.bias, true}, {"workspace", norm.workspace}});
    expect_positive("num_groups", norm.groups);
    expect_multiple("channels", arguments.columns, norm.groups);
    expect(arguments.rows == norm.batch * norm.pixels,
           "x: batch times pixels rows needed, got " + std::to_string(arguments.rows));
    const GroupNormStatistics statistics =
        plan_group_norm(arguments.x, norm.workspace, norm.batch, norm.pixels, arguments.columns, norm.groups, norm.eps);
    group_norm_statistics(statistics, dtype, stream);
    arguments.tile = choose_quantize_tile(quantize_sizes(arguments, false));
    with_tile(arguments.tile, dtype, [&](auto type, auto row_tiles) {
        using T = typename decltype(type)::Type;
        launch_rows(group_norm_quantize_kernel<T, row_tiles.value>, "group_norm_quantize", arguments.tile, stream,
                    GroupNormQuantizeArguments{arguments, norm, statistics.workspace});
    });
}

}  // namespace halfbyte
