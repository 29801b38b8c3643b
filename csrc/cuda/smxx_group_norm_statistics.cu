#include <algorithm>

#include "group_norm_statistics.h"
#include "packed_run.h"

namespace halfbyte {

constexpr int kThreads = 256;
constexpr int kPixelsInRegisters = 16;
constexpr int kEnoughThreads = 1 << 16;  // to fill a large GPU

struct Moments {
    float count = 0, mean = 0, squares = 0;

    // Source: Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, 1979, eq. 2.1.
    DEVICE void merge(float other_count, float other_mean, float other_squares) {
        const float total = count + other_count;
        if (total == 0) return;
        const float difference = other_mean - mean, share = ptx::divide(other_count, total);
        mean += difference * share;
        squares += other_squares + difference * difference * count * share;
        count = total;
    }
};

// Thread: 8 channels of one block of pixels. Grid: [vectors of 8 channels times blocks, batch].
template <class T>
KERNEL void LAUNCH_BOUNDS(kThreads, 1) group_norm_blocks_kernel(const GroupNormStatistics arguments) {
    const int vectors = arguments.channels / 8;
    const int thread = int(blockIdx.x * blockDim.x + threadIdx.x), batch = int(blockIdx.y);
    const int block = thread / vectors, channel = thread % vectors * 8;
    if (block >= arguments.blocks) return;
    const int first = block * arguments.pixels_per_block;
    const int full = first + arguments.pixels_per_block;
    const int last = full < arguments.pixels ? full : arguments.pixels;
    const T* x = static_cast<const T*>(arguments.x) + size_t(batch) * arguments.pixels * arguments.channels + channel;
    Moments moments[8];
    for (int pixel = first; pixel < last; pixel += kPixelsInRegisters) {
        uint32_t words[kPixelsInRegisters][4];
        const int count = last - pixel < kPixelsInRegisters ? last - pixel : kPixelsInRegisters;
        float mean[8] = {}, squares[8] = {};
        UNROLL
        for (int i = 0; i < kPixelsInRegisters; ++i) {
            if (i < count) load_words(x + size_t(pixel + i) * arguments.channels, words[i]);
        }
        auto for_each_value = [&](auto act) {
            UNROLL
            for (int i = 0; i < kPixelsInRegisters; ++i) {
                if (i >= count) continue;
                UNROLL
                for (int j = 0; j < 4; ++j) {
                    float low, high;
                    ptx::unpack2<T>(words[i][j], low, high);
                    act(2 * j, low);
                    act(2 * j + 1, high);
                }
            }
        };
        for_each_value([&](int i, float value) { mean[i] += value; });
        UNROLL
        for (int i = 0; i < 8; ++i) mean[i] = ptx::divide(mean[i], float(count));
        for_each_value([&](int i, float value) { squares[i] += (value - mean[i]) * (value - mean[i]); });
        UNROLL
        for (int i = 0; i < 8; ++i) moments[i].merge(float(count), mean[i], squares[i]);
    }
    const size_t place = (size_t(batch) * arguments.blocks + block) * arguments.channels + channel;
    UNROLL
    for (int i = 0; i < 8; ++i) {
        ptx::store(arguments.workspace.block_mean + place + i, moments[i].mean);
        ptx::store(arguments.workspace.block_squares + place + i, moments[i].squares);
    }
}

// Thread block: one group of one batch item. Grid: [groups, batch].
KERNEL void LAUNCH_BOUNDS(kThreads, 1) group_norm_groups_kernel(const GroupNormStatistics arguments) {
    SHARED_MEMORY(shared);
    const int channels = arguments.channels / arguments.groups, first_channel = int(blockIdx.x) * channels;
    const int batch = int(blockIdx.y), thread = int(threadIdx.x);
    Moments moments;
    for (int i = thread; i < arguments.blocks * channels; i += kThreads) {
        const int block = i / channels, first = block * arguments.pixels_per_block;
        const int rest = arguments.pixels - first;
        const int count = rest < arguments.pixels_per_block ? rest : arguments.pixels_per_block;
        const size_t place = (size_t(batch) * arguments.blocks + block) * arguments.channels + first_channel + i % channels;
        moments.merge(float(count), ptx::load_readonly(arguments.workspace.block_mean + place),
                      ptx::load_readonly(arguments.workspace.block_squares + place));
    }
    auto* places = reinterpret_cast<Moments*>(shared);
    auto field = [&](int i, int which) { return reinterpret_cast<float*>(places + i) + which; };
    for (int half = kThreads / 2; half > 0; half /= 2) {
        if (thread < 2 * half) {
            ptx::store_shared(field(thread, 0), moments.count);
            ptx::store_shared(field(thread, 1), moments.mean);
            ptx::store_shared(field(thread, 2), moments.squares);
        }
        ptx::barrier();
        if (thread < half)
            moments.merge(ptx::load_shared<float>(field(thread + half, 0)), ptx::load_shared<float>(field(thread + half, 1)),
                          ptx::load_shared<float>(field(thread + half, 2)));
        ptx::barrier();
    }
    if (thread == 0) {
        ptx::store_shared(field(0, 1), moments.mean);
        const float variance = ptx::divide(moments.squares, moments.count);
        ptx::store_shared(field(0, 2), ptx::reciprocal(ptx::sqrt(variance + arguments.eps)));
    }
    ptx::barrier();
    for (int i = thread; i < channels; i += kThreads) {
        const size_t place = size_t(batch) * arguments.channels + first_channel + i;
        ptx::store(arguments.workspace.mean + place, ptx::load_shared<float>(field(0, 1)));
        ptx::store(arguments.workspace.factor + place, ptx::load_shared<float>(field(0, 2)));
    }
}

GroupNormStatistics plan_group_norm(const void* x, float* workspace, int batch, int pixels, int channels, int groups, float eps) {
    const int64_t short_blocks = int64_t(batch) * (channels / 8) * ((pixels + kPixelsInRegisters - 1) / kPixelsInRegisters);
    const int merged = int(std::clamp<int64_t>(short_blocks / kEnoughThreads, 1, 16));
    GroupNormStatistics plan{x, {}, batch, pixels, channels, groups, merged * kPixelsInRegisters, 0, eps};
    plan.blocks = (pixels + plan.pixels_per_block - 1) / plan.pixels_per_block;
    const size_t table = size_t(batch) * channels;
    plan.workspace = {workspace, workspace + table, workspace + 2 * table, workspace + (2 + plan.blocks) * table};
    return plan;
}

size_t group_norm_workspace_floats(int batch, int pixels, int channels) {
    const GroupNormStatistics plan = plan_group_norm(nullptr, nullptr, batch, pixels, channels, 1, 0);
    return size_t(2 + 2 * plan.blocks) * batch * channels;
}

void group_norm_statistics(const GroupNormStatistics& arguments, Dtype dtype, Stream stream) {
    const auto blocks_kernel = dtype == Dtype::kHalf ? group_norm_blocks_kernel<Half> : group_norm_blocks_kernel<Bfloat>;
    const unsigned threads = unsigned(arguments.blocks) * (arguments.channels / 8), batch = unsigned(arguments.batch);
    launch(blocks_kernel, "group_norm_blocks", {(threads + kThreads - 1) / kThreads, batch, 1}, kThreads, 0, stream, arguments);
    launch(group_norm_groups_kernel, "group_norm_groups", {unsigned(arguments.groups), batch, 1}, kThreads,
           kThreads * sizeof(Moments), stream, arguments);
}

}  // namespace halfbyte
