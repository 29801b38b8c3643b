// Feature caches on any GPU: each op reads its tensors once, eight elements at a time.
#include "cache.h"

#include "check.h"
#include "runs.h"

namespace halfbyte {

constexpr int kThreads = 256;

// Eight neighbouring elements, of `count`: in 16-byte vectors when whole, else one by one.
struct Run {
    int64_t first;
    int size;

    DEVICE Run(int64_t index, int64_t count) : first(index * kRun) {
        const int64_t left = count - first;
        size = left >= kRun ? kRun : left > 0 ? int(left) : 0;
    }

    // Zeros beyond the end.
    DEVICE void read(const Floats& tensor, int64_t at, float (&values)[kRun]) const {
        if (size == kRun) {
            unpack(load_run(tensor, at), tensor.dtype, values);
            return;
        }
        UNROLL
        for (int i = 0; i < kRun; ++i) values[i] = i < size ? load_element(tensor, at + i) : 0.0f;
    }

    DEVICE void write(void* out, Dtype dtype, const float (&values)[kRun]) const {
        if (size == kRun) {
            store_run(out, first, dtype, values);
            return;
        }
        UNROLL
        for (int i = 0; i < kRun; ++i) {
            if (i < size) store_element(out, first + i, dtype, values[i]);
        }
    }
};

DEVICE int64_t thread_of_launch() { return int64_t(blockIdx.x) * kThreads + threadIdx.x; }

struct DeltaArguments {
    Floats hidden_states, delta;
    void* out;
    int64_t count;
};

KERNEL void LAUNCH_BOUNDS(kThreads, 4) delta_apply_kernel(DeltaArguments arguments) {
    const Run run(thread_of_launch(), arguments.count);
    float x[kRun], delta[kRun];
    run.read(arguments.hidden_states, run.first, x);
    run.read(arguments.delta, run.first, delta);
    UNROLL
    for (int i = 0; i < kRun; ++i) x[i] += delta[i];
    run.write(arguments.out, arguments.hidden_states.dtype, x);
}

struct AffineArguments {
    Floats hidden_states, scale, shift;
    void* out;
    int channels;
    int64_t count;
};

KERNEL void LAUNCH_BOUNDS(kThreads, 4) affine_correct_kernel(AffineArguments arguments) {
    const Run run(thread_of_launch(), arguments.count);
    float x[kRun], scale[kRun], shift[kRun];
    run.read(arguments.hidden_states, run.first, x);
    const int channel = int(run.first % arguments.channels);
    if (arguments.channels % kRun == 0) {
        run.read(arguments.scale, channel, scale);
        run.read(arguments.shift, channel, shift);
    } else {
        UNROLL
        for (int i = 0; i < kRun; ++i) {
            const int wrapped = (channel + i) % arguments.channels;
            scale[i] = load_element(arguments.scale, wrapped);
            shift[i] = load_element(arguments.shift, wrapped);
        }
    }
    UNROLL
    for (int i = 0; i < kRun; ++i) x[i] = ptx::fma(x[i], scale[i], shift[i]);
    run.write(arguments.out, arguments.hidden_states.dtype, x);
}

struct ForecastArguments {
    const void* history[kMaxHistory];
    int steps;
    Dtype dtype;
    const float* coefficients;
    void* out;
    int64_t count;
};

// A kernel parameter indexed by a variable would be copied to local memory.
DEVICE const void* history_of(const ForecastArguments& arguments, int step) {
    const void* past = arguments.history[0];
    UNROLL
    for (int i = 1; i < kMaxHistory; ++i) past = i == step ? arguments.history[i] : past;
    return past;
}

KERNEL void LAUNCH_BOUNDS(kThreads, 4) forecast_kernel(ForecastArguments arguments) {
    const Run run(thread_of_launch(), arguments.count);
    float total[kRun] = {};
    ROLLED
    for (int step = 0; step < arguments.steps; ++step) {
        const float coefficient = ptx::load_readonly(arguments.coefficients + step);
        float past[kRun];
        run.read({history_of(arguments, step), arguments.dtype}, run.first, past);
        UNROLL
        for (int i = 0; i < kRun; ++i) total[i] = ptx::fma(coefficient, past[i], total[i]);
    }
    run.write(arguments.out, arguments.dtype, total);
}

struct RelL1Arguments {
    Floats value, base;
    float* partial_sums;  // [2, blocks]: of |value - base|, then of |base|
    float* out;
    int64_t count;
    int blocks;
};

constexpr int kMaxBlocks = 1024;

DEVICE float magnitude(float x) { return ptx::bits_float(ptx::float_bits(x) & 0x7fffffffu); }

// Thread 0 returns both sums over the block. shared: two floats per warp.
DEVICE void block_sums(float& difference, float& size, uint8_t* shared) {
    UNROLL
    for (int mask = 16; mask; mask /= 2) {
        difference += ptx::shuffle_xor(difference, mask);
        size += ptx::shuffle_xor(size, mask);
    }
    const int warp = int(threadIdx.x) / 32;
    if (threadIdx.x % 32 == 0) ptx::store_shared(shared + warp * 8, Words2{ptx::float_bits(difference), ptx::float_bits(size)});
    ptx::barrier();
    if (threadIdx.x) return;
    difference = size = 0.0f;
    ROLLED
    for (int other = 0; other < kThreads / 32; ++other) {
        const Words2 sums = ptx::load_shared<Words2>(shared + other * 8);
        difference += ptx::bits_float(sums.x);
        size += ptx::bits_float(sums.y);
    }
}

KERNEL void LAUNCH_BOUNDS(kThreads, 4) rel_l1_partial_kernel(RelL1Arguments arguments) {
    SHARED_MEMORY(shared);
    const int64_t stride = int64_t(arguments.blocks) * kThreads;
    float differences[kRun] = {}, sizes[kRun] = {};
    ROLLED
    for (int64_t index = thread_of_launch(); index * kRun < arguments.count; index += stride) {
        const Run run(index, arguments.count);
        float value[kRun], base[kRun];
        run.read(arguments.value, run.first, value);
        run.read(arguments.base, run.first, base);
        UNROLL
        for (int i = 0; i < kRun; ++i) {
            differences[i] += magnitude(value[i] - base[i]);
            sizes[i] += magnitude(base[i]);
        }
    }
    float difference = 0.0f, size = 0.0f;
    UNROLL
    for (int i = 0; i < kRun; ++i) {
        difference += differences[i];
        size += sizes[i];
    }
    block_sums(difference, size, shared);
    if (threadIdx.x) return;
    ptx::store(arguments.partial_sums + blockIdx.x, difference);
    ptx::store(arguments.partial_sums + arguments.blocks + blockIdx.x, size);
}

KERNEL void LAUNCH_BOUNDS(kThreads, 1) rel_l1_total_kernel(RelL1Arguments arguments) {
    SHARED_MEMORY(shared);
    float difference = 0.0f, size = 0.0f;
    ROLLED
    for (int block = int(threadIdx.x); block < arguments.blocks; block += kThreads) {
        difference += ptx::load(arguments.partial_sums + block);
        size += ptx::load(arguments.partial_sums + arguments.blocks + block);
    }
    block_sums(difference, size, shared);
    if (threadIdx.x == 0) ptx::store(arguments.out, ptx::divide(difference, size));
}

namespace cache {

constexpr size_t kSumBytes = kThreads / 32 * 2 * sizeof(float);

int64_t runs_of(int64_t count) { return (count + kRun - 1) / kRun; }

Grid grid_of(int64_t count) { return {unsigned((runs_of(count) + kThreads - 1) / kThreads), 1, 1}; }

int blocks_of_sum(int64_t count) {
    const unsigned blocks = grid_of(count).x;
    return blocks < 1 ? 1 : blocks > kMaxBlocks ? kMaxBlocks : int(blocks);
}

void check(int64_t count, std::initializer_list<Operand> operands) {
    expect_at_most("count", count, int64_t(kThreads) * kRun * 0x7fffffff);
    expect_aligned(16, operands);
}

}  // namespace cache

int rel_l1_workspace(int64_t count) { return 2 * cache::blocks_of_sum(count); }

void rel_l1(Floats value, Floats base, float* workspace, float* out, int64_t count, Stream stream) {
    cache::check(count, {{"value", value.data, !count}, {"base", base.data, !count}});
    expect_aligned(4, {{"workspace", workspace}, {"out", out}});
    const RelL1Arguments arguments{value, base, workspace, out, count, cache::blocks_of_sum(count)};
    launch(rel_l1_partial_kernel, "rel_l1_partial", {unsigned(arguments.blocks), 1, 1}, kThreads, cache::kSumBytes, stream,
           arguments);
    launch(rel_l1_total_kernel, "rel_l1_total", {1, 1, 1}, kThreads, cache::kSumBytes, stream, arguments);
}

void delta_apply(Floats hidden_states, Floats delta, void* out, int64_t count, Stream stream) {
    expect_positive("count", count);
    cache::check(count, {{"hidden_states", hidden_states.data}, {"delta", delta.data}, {"out", out}});
    launch(delta_apply_kernel, "delta_apply", cache::grid_of(count), kThreads, 0, stream,
           DeltaArguments{hidden_states, delta, out, count});
}

void affine_correct(Floats hidden_states, Floats scale, Floats shift, void* out, int64_t count, int channels, Stream stream) {
    expect_positive("count", count);
    expect_positive("channels", channels);
    expect_multiple("count", count, channels);
    cache::check(count, {{"hidden_states", hidden_states.data}, {"scale", scale.data}, {"shift", shift.data}, {"out", out}});
    launch(affine_correct_kernel, "affine_correct", cache::grid_of(count), kThreads, 0, stream,
           AffineArguments{hidden_states, scale, shift, out, channels, count});
}

void forecast(const std::vector<const void*>& history, Dtype dtype, const float* coefficients, void* out, int64_t count,
              Stream stream) {
    expect_positive("count", count);
    expect_positive("history", int64_t(history.size()));
    expect_at_most("history", int64_t(history.size()), kMaxHistory);
    cache::check(count, {{"out", out}});
    expect_aligned(4, {{"coefficients", coefficients}});
    ForecastArguments arguments{{}, int(history.size()), dtype, coefficients, out, count};
    for (size_t step = 0; step < history.size(); ++step) {
        cache::check(count, {{"history", history[step]}});
        arguments.history[step] = history[step];
    }
    launch(forecast_kernel, "forecast", cache::grid_of(count), kThreads, 0, stream, arguments);
}

}  // namespace halfbyte
