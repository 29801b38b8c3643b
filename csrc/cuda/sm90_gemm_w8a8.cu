// INT8 x INT8 and E4M3 x E4M3 on the warpgroup instructions of sm_90, fed by its copy engine.
#include "gemm_host.h"
#include "sm90_gemm_kernel.h"

namespace halfbyte {
namespace sm90 {

using WideTile = WarpgroupTile<256, 4, Shares::kWeights>;
// The widest for promoted sums: a second accumulator, for which 256 columns leave no registers.
using MiddleTile = WarpgroupTile<192, 5, Shares::kWeights>;
// Pairs that lie in one row of tiles: for products that would leave multiprocessors idle.
using NarrowTile = WarpgroupTile<128, 6, Shares::kTokens>;

template <class Tile>
int clusters_of(int multiprocessors, int pairs) {
    return multiprocessors / Tile::kBlocks < pairs ? multiprocessors / Tile::kBlocks : pairs;
}

template <class Tile>
int pairs_of(int m, int n) {
    auto over = [](int size, int block) { return (size + block - 1) / block; };
    return over(m, ClusterTiles<Tile>::kRowsOfPair) * over(n, ClusterTiles<Tile>::kColumnsOfPair);
}

// How long the busiest multiprocessor works, in columns of a tile.
template <class Tile>
double work_of(int m, int n, int multiprocessors) {
    const int clusters = multiprocessors / Tile::kBlocks;
    return (pairs_of<Tile>(m, n) + clusters - 1) / clusters * Tile::kBlockN * Tile::kCyclesEach;
}

template <class Tile>
TileChoice choice_of(int m, int n, int multiprocessors) {
    const int blocks = Tile::kBlocks * clusters_of<Tile>(multiprocessors, pairs_of<Tile>(m, n));
    return {Tile::kBlockM, Tile::kBlockN, Tile::kThreads, Tile::kStages, blocks, WarpgroupMemory<Tile>::kBytes};
}

TileChoice choose(int m, int n, bool e4m3, bool segmented, int next_columns, int multiprocessors) {
    constexpr double kNever = 1e300;
    // Promoted sums are a second accumulator, for which 256 columns leave no registers.
    const double wide = e4m3 || segmented ? kNever : work_of<WideTile>(m, n, multiprocessors);
    // Scales of the next layer would straddle two tiles.
    const double middle = next_columns ? kNever : work_of<MiddleTile>(m, n, multiprocessors);
    const bool straddles = next_columns > NarrowTile::kBlockN && wide < kNever;
    const double narrow = straddles ? kNever : work_of<NarrowTile>(m, n, multiprocessors);
    if (wide <= middle && wide <= narrow) return choice_of<WideTile>(m, n, multiprocessors);
    return middle <= narrow ? choice_of<MiddleTile>(m, n, multiprocessors) : choice_of<NarrowTile>(m, n, multiprocessors);
}

struct Launch {
    const GemmArguments& gemm;
    const TileChoice& choice;
    Stream stream;

    template <class T, class Product, class Tile, bool kPromotes, bool kQuantizes>
    void run() const {
        const EpilogueArguments& epilogue = gemm.epilogue;
        WarpgroupArguments arguments{};
        arguments.gemm = gemm;
        arguments.qx = map_of(gemm.qx, gemm.m, gemm.row_bytes, Tile::kHalfM);
        arguments.qweight = map_of(gemm.qweight, gemm.n, gemm.row_bytes, Tile::kHalfN);
        if (gemm.rank_bytes) {
            arguments.low_rank_act = map_of(gemm.low_rank_act, gemm.m, gemm.rank_bytes, Tile::kHalfM);
            arguments.proj_up = map_of(gemm.proj_up, gemm.n, gemm.rank_bytes, Tile::kHalfN);
        }
        arguments.boxes_leave = !kQuantizes && !epilogue.residual && epilogue.out_dtype != Dtype::kFloat;
        if (arguments.boxes_leave) {
            const int width = epilogue.glu == Glu::kNone ? gemm.n : gemm.n / 2;
            arguments.out = tensor_map_of_rows(epilogue.out, gemm.m, 2 * width, 2 * int64_t(epilogue.out_stride), kStagedRows);
        }
        launch(warpgroup_gemm_kernel<T, Product, Tile, kPromotes, kQuantizes>, "sm90_gemm_w8a8", {unsigned(choice.blocks), 1, 1},
               choice.threads, choice.shared_bytes, stream, arguments);
    }

private:
    static TensorMap map_of(const void* rows, int row_count, int row_bytes, int box_rows) {
        return tensor_map_of_rows(rows, row_count, row_bytes, row_bytes, box_rows);
    }
};

template <class T>
void launch_product(const Launch& launch, bool e4m3, bool segmented) {
    switch (launch.choice.block_n) {
        case WideTile::kBlockN:
            return launch.run<T, Int8Warpgroup, WideTile, false, false>();
        case MiddleTile::kBlockN:
            return e4m3        ? launch.run<T, E4m3Warpgroup, MiddleTile, true, false>()
                   : segmented ? launch.run<T, Int8Warpgroup, MiddleTile, true, false>()
                               : launch.run<T, Int8Warpgroup, MiddleTile, false, false>();
        default:
            return e4m3        ? launch.run<T, E4m3Warpgroup, NarrowTile, true, false>()
                   : segmented ? launch.run<T, Int8Warpgroup, NarrowTile, true, false>()
                               : launch.run<T, Int8Warpgroup, NarrowTile, false, false>();
    }
}

// Narrow tiles are few here: without segments too they take the kernel that promotes.
template <class T>
void launch_quantizing(const Launch& launch, bool e4m3) {
    if (launch.choice.block_n == WideTile::kBlockN) return launch.run<T, Int8Warpgroup, WideTile, false, true>();
    e4m3 ? launch.run<T, E4m3Warpgroup, NarrowTile, true, true>() : launch.run<T, Int8Warpgroup, NarrowTile, true, true>();
}

template <class T>
void launch_gemm(const GemmArguments& gemm, bool e4m3, Dtype dtype, Stream stream) {
    const NextLayerArguments& next = gemm.epilogue.next;
    const int halves = gemm.epilogue.glu == Glu::kNone ? 1 : 2;
    const bool segmented = gemm.segment_bytes < gemm.row_bytes;
    const TileChoice choice =
        choose(gemm.m, gemm.n, e4m3, segmented, next.qx ? halves * next.scale_columns : 0, multiprocessors());
    check_next_layer(next, choice.block_n / halves);
    const Launch launch{gemm, choice, stream};
    if (!next.qx) return launch_product<T>(launch, e4m3, segmented);
    launch_quantizing<T>(launch, e4m3);
    const int column_blocks = (gemm.n + choice.block_n - 1) / choice.block_n;
    if (next.rank) sum_partials({next.partials, next.low_rank_act, column_blocks, gemm.m * next.rank, dtype}, stream);
}

}  // namespace sm90

TileChoice choose_sm90_gemm_w8a8_tile(int m, int n, bool e4m3, bool segmented, int next_columns, int multiprocessors) {
    return sm90::choose(m, n, e4m3, segmented, next_columns, multiprocessors);
}

void sm90_gemm_w8a8(const GemmArguments& arguments, bool e4m3, Dtype dtype, Stream stream) {
    check_gemm(arguments, dtype);
    expect_positive("columns of a segment", arguments.segment_bytes);
    expect_multiple("K", arguments.row_bytes, arguments.segment_bytes);
    // A box must not straddle two segments.
    const bool segmented = arguments.segment_bytes < arguments.row_bytes;
    if (segmented) expect_multiple("columns of a segment", arguments.segment_bytes, kBoxBytes);
    if (dtype == Dtype::kHalf) {
        sm90::launch_gemm<Half>(arguments, e4m3, dtype, stream);
    } else {
        sm90::launch_gemm<Bfloat>(arguments, e4m3, dtype, stream);
    }
}

}  // namespace halfbyte
