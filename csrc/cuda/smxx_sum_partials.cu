#include "sum_partials.h"

#include "ptx.h"

namespace halfbyte {
namespace partials {

constexpr int kThreads = 256, kEach = 4;

template <class T>
KERNEL void LAUNCH_BOUNDS(kThreads, 1) sum_partials_kernel(const PartialsArguments arguments) {
    const int first = (int(blockIdx.x) * kThreads + int(threadIdx.x)) * kEach;
    if (first >= arguments.count) return;
    float sums[kEach] = {};
    for (int block = 0; block < arguments.blocks; ++block) {
        const float* partial = arguments.partials + size_t(block) * arguments.count + first;
        const Words4 words = ptx::load(reinterpret_cast<const Words4*>(partial));
        sums[0] += ptx::bits_float(words.x);
        sums[1] += ptx::bits_float(words.y);
        sums[2] += ptx::bits_float(words.z);
        sums[3] += ptx::bits_float(words.w);
    }
    const Words2 rounded = {ptx::pack2<T>(sums[0], sums[1]), ptx::pack2<T>(sums[2], sums[3])};
    ptx::store(reinterpret_cast<Words2*>(static_cast<T*>(arguments.out) + first), rounded);
}

}  // namespace partials

void sum_partials(const PartialsArguments& arguments, Stream stream) {
    using namespace partials;
    const int per_block = kThreads * kEach;
    const Grid grid{unsigned((arguments.count + per_block - 1) / per_block), 1, 1};
    auto kernel = arguments.dtype == Dtype::kHalf ? sum_partials_kernel<Half> : sum_partials_kernel<Bfloat>;
    launch(kernel, "sum_partials", grid, kThreads, 0, stream, arguments);
}

}  // namespace halfbyte
