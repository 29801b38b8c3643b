// 8-bit codes of whole rows by clusters of sm_90, at the pace of memory.
#include "quantize_host.h"
#include "sm90_quantize_rows.h"

namespace halfbyte {

template <class T, int kRanks>
KERNEL CLUSTER_OF(ClusterQuantizeTile::kBlocks) void LAUNCH_BOUNDS(32 * ClusterQuantizeTile::kMostWarps, 1)
    sm90_quantize_act_kernel(const GRID_CONSTANT ClusterQuantizeArguments arguments) {
    SHARED_MEMORY(shared);
    // The same in all lanes, which the compiler cannot see of the thread's index.
    ClusterQuantizeRows<T, kRanks>(arguments, shared, ptx::shuffle(int(threadIdx.x / 32), 0)).run();
}

ClusterQuantizeTile choose_sm90_quantize_tile(int rows, int columns, int rank, int clusters_alone, int clusters_paired) {
    return choose_cluster_quantize_tile({rows, columns, rank}, {clusters_alone, clusters_paired});
}

void sm90_quantize_act(const QuantizeArguments& arguments, Dtype dtype, Stream stream) {
    check_quantize(arguments, dtype);
    expect(arguments.format == ActFormat::kInt8 || arguments.format == ActFormat::kFp8, "format: int8 or fp8 needed");
    expect(arguments.segments == 1, "segments: one scale for each token needed");
    expect(arguments.shift == 0, "shift: none needed");
    expect_multiple("R", arguments.rank, 8);
    expect_at_most("R", arguments.rank, 64);
    auto launch_kernel = [&](auto kernel) {
        using Tile = ClusterQuantizeTile;
        auto at_once = [&](int warps, int bytes) {
            return clusters_at_once(reinterpret_cast<const void*>(kernel), Tile::kBlocks, 32 * warps, size_t(bytes));
        };
        const Tile tile = choose_sm90_quantize_tile(arguments.rows, arguments.columns, arguments.rank,
                                                    at_once(Tile::kMostWarps, Tile::kMostBytes),
                                                    at_once(Tile::kPairedWarps, Tile::kPairedBytes));
        expect(tile.slots > 0, "K and R: less needed, for proj_down and a group of rows to fit a cluster's shared memory");
        const int row_bytes = 2 * arguments.columns;
        const TensorMap x = tensor_map_of_rows(arguments.x, arguments.rows, row_bytes, row_bytes, Tile::kBoxRows);
        launch(kernel, "sm90_quantize_act", {unsigned(tile.clusters * Tile::kBlocks), 1, 1}, 32 * tile.warps,
               size_t(tile.shared_bytes), stream, ClusterQuantizeArguments{x, arguments, tile});
    };
    auto with_ranks = [&](auto type) {
        using T = typename decltype(type)::Type;
        arguments.rank > 32 ? launch_kernel(sm90_quantize_act_kernel<T, 64>) : launch_kernel(sm90_quantize_act_kernel<T, 32>);
    };
    dtype == Dtype::kHalf ? with_ranks(TypeTag<Half>()) : with_ranks(TypeTag<Bfloat>());
}

}  // namespace halfbyte
