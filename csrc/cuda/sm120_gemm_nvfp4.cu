// NVFP4 x NVFP4 in blocks of 16 on the block-scaled tensor cores of sm_120.
#include "gemm_host.h"
#include "nvfp4_math.h"

namespace halfbyte {
namespace nvfp4 {

// Fewer stages than a large tile has elsewhere: a block of sm_120 has 99 KB of shared memory.
using LargeTile = GemmTile<256, 128, 4, 2, 3>;
// Text streams and guidance batches have few tokens: small tiles spread them over the GPU.
using SmallTile = GemmTile<64, 64, 2, 2, 4>;
// An INT4 group of the next layer does not fit a small tile with a gated linear unit.
inline bool few_rows(int m, bool quantized) { return m <= 128 && !quantized; }

template <class T>
void launch_tile(const GemmArguments& arguments, Stream stream) {
    if (few_rows(arguments.m, arguments.epilogue.next.qx)) {
        launch_gemm<Nvfp4Math<SmallTile, T>>("gemm_nvfp4", arguments, stream);
    } else {
        launch_gemm<Nvfp4Math<LargeTile, T>>("gemm_nvfp4", arguments, stream);
    }
}

}  // namespace nvfp4

TileChoice choose_gemm_nvfp4_tile(int m, int n, bool quantized) {
    using namespace nvfp4;
    return few_rows(m, quantized) ? tile_choice_of<Nvfp4Math<SmallTile, Half>>(m, n, quantized)
                                  : tile_choice_of<Nvfp4Math<LargeTile, Half>>(m, n, quantized);
}

void gemm_nvfp4(const GemmArguments& arguments, Dtype dtype, Stream stream) {
    check_gemm(arguments, dtype);
    expect_aligned(4, {{"wtscale", arguments.wtscale}});
    expect_multiple("rows of ascales", arguments.padded_m, 8);
    if (dtype == Dtype::kHalf) {
        nvfp4::launch_tile<Half>(arguments, stream);
    } else {
        nvfp4::launch_tile<Bfloat>(arguments, stream);
    }
}

}  // namespace halfbyte
