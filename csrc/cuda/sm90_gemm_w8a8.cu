// INT8 x INT8 and E4M3 x E4M3 on the warpgroup instructions of sm_90, fed by its copy engine.
#include "gemm_host.h"
#include "sm90_gemm_kernel.h"

namespace halfbyte {
namespace sm90 {

using WideTile = WarpgroupTile<256, 4, Shares::kWeights>;
// The widest for E4M3: its promoted sums are a second accumulator, for which 256 columns leave no registers.
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

// How long the busiest multiprocessor works, in columns of a tile. Narrow tiles read more of shared memory for each product.
template <class Tile>
double work_of(int m, int n, int multiprocessors) {
    constexpr double kSlower = Tile::kBlockN == 256 ? 1.0 : Tile::kBlockN == 192 ? 1.03 : 1.25;
    const int clusters = multiprocessors / Tile::kBlocks;
    return (pairs_of<Tile>(m, n) + clusters - 1) / clusters * Tile::kBlockN * kSlower;
}

template <class Tile>
TileChoice choice_of(int m, int n, int multiprocessors) {
    const int blocks = Tile::kBlocks * clusters_of<Tile>(multiprocessors, pairs_of<Tile>(m, n));
    return {Tile::kBlockM, Tile::kBlockN, Tile::kThreads, Tile::kStages, blocks, WarpgroupMemory<Tile>::kBytes};
}

TileChoice choose(int m, int n, bool e4m3, int multiprocessors) {
    const double narrow = work_of<NarrowTile>(m, n, multiprocessors), middle = work_of<MiddleTile>(m, n, multiprocessors);
    const bool wide = !e4m3 && work_of<WideTile>(m, n, multiprocessors) <= (middle < narrow ? middle : narrow);
    if (wide) return choice_of<WideTile>(m, n, multiprocessors);
    return middle <= narrow ? choice_of<MiddleTile>(m, n, multiprocessors) : choice_of<NarrowTile>(m, n, multiprocessors);
}

template <class T, class Product, class Tile>
void launch_tile(const GemmArguments& gemm, const TileChoice& choice, Stream stream) {
    WarpgroupArguments arguments{};
    arguments.gemm = gemm;
    arguments.qx = tensor_map_of_rows(gemm.qx, gemm.m, gemm.row_bytes, Tile::kHalfM);
    arguments.qweight = tensor_map_of_rows(gemm.qweight, gemm.n, gemm.row_bytes, Tile::kHalfN);
    if (gemm.rank_bytes) {
        arguments.low_rank_act = tensor_map_of_rows(gemm.low_rank_act, gemm.m, gemm.rank_bytes, Tile::kHalfM);
        arguments.proj_up = tensor_map_of_rows(gemm.proj_up, gemm.n, gemm.rank_bytes, Tile::kHalfN);
    }
    launch(warpgroup_gemm_kernel<T, Product, Tile>, "sm90_gemm_w8a8", {unsigned(choice.blocks), 1, 1}, choice.threads,
           choice.shared_bytes, stream, arguments);
}

template <class T>
void launch_product(const GemmArguments& gemm, bool e4m3, Stream stream) {
    const TileChoice choice = choose(gemm.m, gemm.n, e4m3, multiprocessors());
    if (choice.block_n == WideTile::kBlockN) {
        launch_tile<T, Int8Warpgroup, WideTile>(gemm, choice, stream);
    } else if (choice.block_n == MiddleTile::kBlockN) {
        e4m3 ? launch_tile<T, E4m3Warpgroup, MiddleTile>(gemm, choice, stream)
             : launch_tile<T, Int8Warpgroup, MiddleTile>(gemm, choice, stream);
    } else {
        e4m3 ? launch_tile<T, E4m3Warpgroup, NarrowTile>(gemm, choice, stream)
             : launch_tile<T, Int8Warpgroup, NarrowTile>(gemm, choice, stream);
    }
}

}  // namespace sm90

TileChoice choose_sm90_gemm_w8a8_tile(int m, int n, bool e4m3, int multiprocessors) {
    return sm90::choose(m, n, e4m3, multiprocessors);
}

void sm90_gemm_w8a8(const GemmArguments& arguments, bool e4m3, Dtype dtype, Stream stream) {
    check_gemm(arguments, dtype);
    expect(arguments.segment_bytes == arguments.row_bytes, "segments: one scale for each token needed");
    expect(!arguments.epilogue.next.qx, "next layer: an output that is not quantized needed");
    if (dtype == Dtype::kHalf) {
        sm90::launch_product<Half>(arguments, e4m3, stream);
    } else {
        sm90::launch_product<Bfloat>(arguments, e4m3, stream);
    }
}

}  // namespace halfbyte
