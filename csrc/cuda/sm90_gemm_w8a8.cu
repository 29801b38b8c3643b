// INT8 x INT8 and E4M3 x E4M3 on the warpgroup instructions of sm_90, fed by its copy engine.
#include "gemm_host.h"
#include "sm90_gemm_kernel.h"

namespace halfbyte {
namespace sm90 {

using Int8Tile = WarpgroupTile<256, 4, Shares::kWeights>;
// Promoted sums are a second accumulator, for which 256 columns leave no registers.
using E4m3Tile = WarpgroupTile<192, 5, Shares::kWeights>;
// Twice the tiles, and pairs that lie in one row of them: for products that would leave multiprocessors idle.
using SmallTile = WarpgroupTile<128, 6, Shares::kTokens>;

template <class Tile>
TileChoice choice_of(int m, int n, int multiprocessors) {
    auto over = [](int size, int block) { return (size + block - 1) / block; };
    const int pairs = over(m, ClusterTiles<Tile>::kRowsOfPair) * over(n, ClusterTiles<Tile>::kColumnsOfPair);
    const int clusters = multiprocessors / Tile::kBlocks < pairs ? multiprocessors / Tile::kBlocks : pairs;
    return {Tile::kBlockM, Tile::kBlockN, Tile::kThreads, Tile::kStages, clusters * Tile::kBlocks, WarpgroupMemory<Tile>::kBytes};
}

// Columns that one multiprocessor after another works through; narrow tiles read more of shared memory for each product.
template <class Tile>
double columns_of_work(int m, int n, int multiprocessors) {
    const int pairs = ((m + ClusterTiles<Tile>::kRowsOfPair - 1) / ClusterTiles<Tile>::kRowsOfPair) *
                      ((n + ClusterTiles<Tile>::kColumnsOfPair - 1) / ClusterTiles<Tile>::kColumnsOfPair);
    const int clusters = multiprocessors / Tile::kBlocks;
    constexpr double kSlower = Tile::kBlockN == 128 ? 1.25 : 1.0;
    return (pairs + clusters - 1) / clusters * Tile::kBlockN * kSlower;
}

template <class Tile>
bool prefers_small(int m, int n, int multiprocessors) {
    return columns_of_work<SmallTile>(m, n, multiprocessors) < columns_of_work<Tile>(m, n, multiprocessors);
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

template <class T, class Product, class Tile>
void launch_product(const GemmArguments& gemm, Stream stream) {
    const int processors = multiprocessors();
    if (prefers_small<Tile>(gemm.m, gemm.n, processors)) {
        launch_tile<T, Product, SmallTile>(gemm, choice_of<SmallTile>(gemm.m, gemm.n, processors), stream);
    } else {
        launch_tile<T, Product, Tile>(gemm, choice_of<Tile>(gemm.m, gemm.n, processors), stream);
    }
}

template <class T>
void launch_codes(const GemmArguments& gemm, bool e4m3, Stream stream) {
    if (e4m3) {
        launch_product<T, E4m3Warpgroup, E4m3Tile>(gemm, stream);
    } else {
        launch_product<T, Int8Warpgroup, Int8Tile>(gemm, stream);
    }
}

template <class Tile>
TileChoice choose(int m, int n, int multiprocessors) {
    return prefers_small<Tile>(m, n, multiprocessors) ? choice_of<SmallTile>(m, n, multiprocessors)
                                                      : choice_of<Tile>(m, n, multiprocessors);
}

}  // namespace sm90

TileChoice choose_sm90_gemm_w8a8_tile(int m, int n, bool e4m3, int multiprocessors) {
    return e4m3 ? sm90::choose<sm90::E4m3Tile>(m, n, multiprocessors) : sm90::choose<sm90::Int8Tile>(m, n, multiprocessors);
}

void sm90_gemm_w8a8(const GemmArguments& arguments, bool e4m3, Dtype dtype, Stream stream) {
    check_gemm(arguments, dtype);
    expect(arguments.segment_bytes == arguments.row_bytes, "segments: one scale for each token needed");
    expect(!arguments.epilogue.next.qx, "next layer: an output that is not quantized needed");
    if (dtype == Dtype::kHalf) {
        sm90::launch_codes<Half>(arguments, e4m3, stream);
    } else {
        sm90::launch_codes<Bfloat>(arguments, e4m3, stream);
    }
}

}  // namespace halfbyte
