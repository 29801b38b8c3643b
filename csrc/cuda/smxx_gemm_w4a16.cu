// W4A16 on any GPU from sm_80: x of one to eight rows as a matrix-vector product, more rows as a tiled one.
#include "check.h"
#include "gemm_w4a16.h"
#include "w4a16_gemm.h"
#include "w4a16_gemv.h"

namespace halfbyte {

struct SmoothArguments {
    Floats x, smooth;
    uint16_t* parts;
    int64_t runs;
    int k;
};

constexpr int kSmoothThreads = 128;

// x / smooth as the sum of two bfloat16, 16 significant bits in all.
KERNEL void LAUNCH_BOUNDS(kSmoothThreads, 8) smooth_to_parts_kernel(SmoothArguments arguments) {
    const int64_t run = int64_t(blockIdx.x) * kSmoothThreads + threadIdx.x;
    if (run >= arguments.runs) return;
    const int64_t first = run * kRun, m = first / arguments.k, k = first % arguments.k;
    const RunBits x_bits = load_run(arguments.x, first);
    const RunBits smooth_bits = load_run(arguments.smooth, k);
    float x[kRun], smooth[kRun], high[kRun], low[kRun];
    unpack(x_bits, arguments.x.dtype, x);
    unpack(smooth_bits, arguments.smooth.dtype, smooth);
    UNROLL
    for (int i = 0; i < kRun; ++i) {
        const float smoothed = ptx::divide(x[i], smooth[i]);
        high[i] = ptx::to_float(ptx::from_float<Bfloat>(smoothed));
        // Nothing is left of an infinity; the difference would be NaN.
        low[i] = high[i] - high[i] == 0.0f ? smoothed - high[i] : 0.0f;
    }
    store_run(arguments.parts, 2 * m * arguments.k + k, Dtype::kBfloat, high);
    store_run(arguments.parts, (2 * m + 1) * arguments.k + k, Dtype::kBfloat, low);
}

namespace w4a16 {

constexpr int kMaxRows = 512;
// Scales are addressed by 32-bit numbers.
constexpr int kMaxK = 1 << 16;
constexpr int kMaxN = 1 << 18;
// Enough blocks for two on each multiprocessor of the largest GPUs.
constexpr int kEnoughBlocks = 264;

void check(Floats x, Floats smooth, const uint16_t* parts, WeightFormat format, const W4A16Arguments& arguments) {
    expect(x.dtype != Dtype::kFloat, "x: float16 or bfloat16 needed, got float32");
    expect_positive("M", arguments.m);
    expect_positive("N", arguments.n);
    expect_positive("K", arguments.k);
    expect_at_most("M", arguments.m, kMaxRows);
    expect_at_most("K", arguments.k, kMaxK);
    expect_at_most("N", arguments.n, kMaxN);
    expect_multiple("N", arguments.n, 8);
    expect_multiple("K", arguments.k, format == WeightFormat::kInt4 ? kInt4Group : kNvfp4Group);
    const bool ranked = arguments.rank > 0;
    expect_aligned(16, {{"x", x.data},
                        {"smooth", smooth.data, true},
                        {"parts", parts, !smooth.data},
                        {"qweight", arguments.qweight},
                        {"out", arguments.out}});
    expect_aligned(4, {{"wtscale", arguments.wtscale, format == WeightFormat::kInt4},
                       {"low_rank_act", arguments.low_rank_act.data, !ranked},
                       {"proj_up", arguments.proj_up.data, !ranked}});
    expect_aligned(2, {{"bias", arguments.bias.data, true}});
    expect_aligned(format == WeightFormat::kInt4 ? 2 : 1, {{"wscales", arguments.wscales.data}});
    expect(format == WeightFormat::kNvfp4 || arguments.wscales.dtype != Dtype::kFloat,
           "wscales: float16 or bfloat16 needed for int4, got float32");
}

template <class T, WeightFormat kFormat, int kTiles>
void launch_gemv(const W4A16Arguments& arguments, const W4A16Choice& choice, Stream stream) {
    launch(gemv_w4a16_kernel<T, kFormat, kTiles>, "gemm_w4a16", choice.grid, kGemvThreads, GemvSums<kTiles>::kBytes, stream,
           GemvArguments{arguments, choice.row_tiles});
}

template <class T, WeightFormat kFormat>
void launch_product(const W4A16Arguments& arguments, const W4A16Choice& choice, Stream stream) {
    if (!choice.gemv) {
        launch(gemm_w4a16_kernel<T, kFormat>, "gemm_w4a16", choice.grid, kGemmThreads, kGemmSharedBytes, stream, arguments);
    } else if (choice.column_tiles == 1) {
        launch_gemv<T, kFormat, 1>(arguments, choice, stream);
    } else if (choice.column_tiles == 2) {
        launch_gemv<T, kFormat, 2>(arguments, choice, stream);
    } else {
        // Two parts of more than four rows, which are always bfloat16.
        launch_gemv<Bfloat, kFormat, 4>(arguments, choice, stream);
    }
}

template <class T>
void launch_format(WeightFormat format, const W4A16Arguments& arguments, const W4A16Choice& choice, Stream stream) {
    if (format == WeightFormat::kInt4) {
        launch_product<T, WeightFormat::kInt4>(arguments, choice, stream);
    } else {
        launch_product<T, WeightFormat::kNvfp4>(arguments, choice, stream);
    }
}

int blocks_of(int size, int block) { return (size + block - 1) / block; }

}  // namespace w4a16

std::string W4A16Choice::describe() const {
    const std::string blocks = std::to_string(grid.x * grid.y) + " blocks";
    if (!gemv) return "64 x 64 tiles, " + blocks;
    return "matrix-vector, " + std::to_string(16 * row_tiles) + " weight rows split over K by " +
           std::to_string(kGemvWarps / row_tiles) + ", " + std::to_string(4 * column_tiles) + " rows of x, " + blocks;
}

W4A16Choice choose_w4a16(int m, int n, int parts) {
    using w4a16::blocks_of;
    if (m > kGemvMaxRows) {
        const Grid grid{unsigned(blocks_of(n, kGemmBlockN)), unsigned(blocks_of(m * parts, kGemmBlockC)), 1};
        return {false, 0, 0, grid};
    }
    int row_tiles = kGemvWarps;
    while (row_tiles > 1 && blocks_of(n, kGemvRows * row_tiles) < w4a16::kEnoughBlocks) row_tiles /= 2;
    const int tiles = blocks_of(m * parts, kGemvColumns);
    return {true, row_tiles, tiles == 3 ? 4 : tiles, {unsigned(blocks_of(n, kGemvRows * row_tiles)), 1, 1}};
}

void gemm_w4a16(Floats x, Floats smooth, uint16_t* parts, WeightFormat format, W4A16Arguments arguments, Stream stream) {
    w4a16::check(x, smooth, parts, format, arguments);
    arguments.x = static_cast<const uint16_t*>(x.data);
    arguments.parts = 1;
    if (smooth.data) {
        const int64_t runs = int64_t(arguments.m) * arguments.k / kRun;
        const Grid grid{unsigned((runs + kSmoothThreads - 1) / kSmoothThreads), 1, 1};
        launch(smooth_to_parts_kernel, "smooth_to_parts", grid, kSmoothThreads, 0, stream,
               SmoothArguments{x, smooth, parts, runs, arguments.k});
        arguments.x = parts;
        arguments.parts = 2;
    }
    const W4A16Choice choice = choose_w4a16(arguments.m, arguments.n, arguments.parts);
    if (arguments.parts == 1 && x.dtype == Dtype::kHalf) {
        w4a16::launch_format<Half>(format, arguments, choice, stream);
    } else {
        w4a16::launch_format<Bfloat>(format, arguments, choice, stream);
    }
}

}  // namespace halfbyte
