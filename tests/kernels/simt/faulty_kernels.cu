// One fault each.
#include "checks.h"
#include "cuda/ptx.h"

namespace halfbyte {

constexpr int kThreads = 64;

KERNEL void load_beyond_the_end(const CheckArguments arguments) {
    if (threadIdx.x < 5) ptx::load(reinterpret_cast<const Words4*>(arguments.x) + threadIdx.x);
}

KERNEL void store_before_the_beginning(const CheckArguments arguments) {
    ptx::store(arguments.y - 1 + threadIdx.x, uint8_t(1));
}

KERNEL void load_misaligned(const CheckArguments arguments) {
    if (threadIdx.x == 0) ptx::load_readonly(reinterpret_cast<const uint32_t*>(arguments.x + 2));
}

KERNEL void load_beyond_shared(const CheckArguments) {
    SHARED_MEMORY(shared);
    ptx::load_shared<uint32_t>(shared + 4 * (threadIdx.x + 1));
}

KERNEL void store_shared_misaligned(const CheckArguments) {
    SHARED_MEMORY(shared);
    ptx::store_shared(shared + 2, 1.0f);
}

KERNEL void copy_beyond_the_end(const CheckArguments arguments) {
    SHARED_MEMORY(shared);
    ptx::cp_async_16(shared, arguments.x + 64, true);
}

KERNEL void copy_nothing_from_nowhere(const CheckArguments arguments) {
    SHARED_MEMORY(shared);
    ptx::cp_async_16(shared + 16 * threadIdx.x, nullptr, false);
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    ptx::store(arguments.y + threadIdx.x, ptx::load_shared<uint8_t>(shared + 16 * threadIdx.x));
}

KERNEL void only_the_first_block_stores(const CheckArguments arguments) {
    if (blockIdx.x == 0) ptx::store(arguments.y + threadIdx.x, uint8_t(1));
}

KERNEL void divergent_ldmatrix(const CheckArguments) {
    SHARED_MEMORY(shared);
    uint32_t r[4];
    if (threadIdx.x % 32 < 16)
        ptx::ldmatrix_x4(r, shared);
    else
        ptx::ldmatrix_x4(r, shared + 16);
}

KERNEL void half_a_warp_shuffles(const CheckArguments) {
    if (threadIdx.x < 16) ptx::shuffle(1, 0);
}

KERNEL void index_beyond_a_register_array(const CheckArguments arguments) {
    int values[4] = {1, 2, 3, 4}, sum = 0;
    for (int i = 0; i <= 3 + ptx::load(arguments.x + 63); ++i) sum += values[i + (threadIdx.x == 9)];
    ptx::store(arguments.y + threadIdx.x, uint8_t(sum));
}

KERNEL void shift_by_the_width(const CheckArguments arguments) {
    ptx::store(arguments.y + threadIdx.x, uint8_t(1u << threadIdx.x % 33));
}

KERNEL void early_return(const CheckArguments) {
    if (threadIdx.x >= 40) return;
    ptx::barrier();
}

KERNEL void one_warp_skips_the_barrier(const CheckArguments) {
    if (threadIdx.x < 32) ptx::barrier();
    ptx::warp_sync();
}

KERNEL void store_the_same_byte_twice(const CheckArguments arguments) {
    ptx::store(arguments.y + threadIdx.x % 63, uint8_t(threadIdx.x));
}

KERNEL void store_from_every_block(const CheckArguments arguments) {
    if (threadIdx.x == 0) ptx::store(arguments.y, uint8_t(blockIdx.x));
}

KERNEL void load_what_another_block_stored(const CheckArguments arguments) {
    uint8_t* mine = arguments.y + 32 * blockIdx.x;
    const uint8_t* other = arguments.y + 32 * (1 - blockIdx.x);
    if (threadIdx.x == 0) ptx::store(mine, ptx::load(other));
}

KERNEL void readonly_load_of_a_store(const CheckArguments arguments) {
    ptx::store(arguments.y + threadIdx.x, uint8_t(1));
    ptx::load_readonly(arguments.y + threadIdx.x);
}

KERNEL void lanes_exchange_without_warp_sync(const CheckArguments) {
    SHARED_MEMORY(shared);
    ptx::store_shared(shared + 4 * threadIdx.x, 1);
    ptx::load_shared<int>(shared + 4 * (threadIdx.x ^ 1));
}

KERNEL void lanes_exchange(const CheckArguments arguments) {
    SHARED_MEMORY(shared);
    ptx::store_shared(shared + 4 * threadIdx.x, int(threadIdx.x));
    ptx::warp_sync();
    int other = ptx::load_shared<int>(shared + 4 * (threadIdx.x ^ 1));
    ptx::warp_sync();
    ptx::store_shared(shared + 4 * threadIdx.x, other);
    ptx::store(arguments.y + threadIdx.x, uint8_t(other));
}

KERNEL void read_own_copy_before_waiting(const CheckArguments arguments) {
    SHARED_MEMORY(shared);
    ptx::cp_async_16(shared + 16 * threadIdx.x, arguments.x, true);
    ptx::cp_async_commit();
    ptx::store(arguments.y + threadIdx.x, ptx::load_shared<uint8_t>(shared + 16 * threadIdx.x));
}

KERNEL void read_another_copy_without_barrier(const CheckArguments arguments) {
    SHARED_MEMORY(shared);
    if (threadIdx.x < 32) ptx::cp_async_16(shared + 16 * threadIdx.x, arguments.x, true);
    ptx::cp_async_commit();
    ptx::barrier();
    ptx::cp_async_wait<0>();
    if (threadIdx.x >= 32) ptx::load_shared<uint8_t>(shared + 16 * (threadIdx.x - 32));
}

KERNEL void overwrite_what_another_warp_reads(const CheckArguments) {
    SHARED_MEMORY(shared);
    if (threadIdx.x < 32) ptx::load_shared<uint32_t>(shared);
    if (threadIdx.x == 32) ptx::store_shared(shared, 1);
}

KERNEL void read_uninitialised_shared(const CheckArguments arguments) {
    SHARED_MEMORY(shared);
    ptx::store(arguments.y + threadIdx.x, ptx::load_shared<uint8_t>(shared + threadIdx.x));
}

template <void (*kKernel)(CheckArguments), int kSharedBytes = 0, int kBlocks = 1, int kBlockThreads = kThreads>
void start(const CheckArguments& arguments) {
    launch(kKernel, "faulty", {kBlocks, 1, 1}, kBlockThreads, kSharedBytes, 0, arguments);
}

const NamedCheck kFaultyKernels[] = {
    {"load beyond the end", start<load_beyond_the_end>},
    {"store before the beginning", start<store_before_the_beginning>},
    {"load misaligned", start<load_misaligned>},
    {"load beyond shared", start<load_beyond_shared, 4 * kThreads>},
    {"store shared misaligned", start<store_shared_misaligned, 64>},
    {"copy beyond the end", start<copy_beyond_the_end, 64>},
    {"copy nothing from nowhere", start<copy_nothing_from_nowhere, 16 * kThreads>},
    {"divergent ldmatrix", start<divergent_ldmatrix, 64>},
    {"index beyond a register array", start<index_beyond_a_register_array>},
    {"shift by the width", start<shift_by_the_width>},
    {"half a warp shuffles", start<half_a_warp_shuffles>},
    {"early return", start<early_return>},
    {"one warp skips the barrier", start<one_warp_skips_the_barrier>},
    {"store the same byte twice", start<store_the_same_byte_twice>},
    {"store from every block", start<store_from_every_block, 0, 2>},
    {"load what another block stored", start<load_what_another_block_stored, 0, 2>},
    {"read-only load of a store", start<readonly_load_of_a_store>},
    {"lanes exchange without warp_sync", start<lanes_exchange_without_warp_sync, 4 * kThreads>},
    {"lanes exchange", start<lanes_exchange, 4 * kThreads>},
    {"read own copy before waiting", start<read_own_copy_before_waiting, 16 * kThreads>},
    {"read another copy without barrier", start<read_another_copy_without_barrier, 16 * 32>},
    {"overwrite what another warp reads", start<overwrite_what_another_warp_reads, 16>},
    {"one block too many", start<only_the_first_block_stores, 0, 2>},
    {"read uninitialised shared", start<read_uninitialised_shared, kThreads>},
    {"a block of 48 threads", start<lanes_exchange, 4 * kThreads, 1, 48>},
    {"too much shared memory", start<lanes_exchange, 228 * 1024>},
    {"no blocks", start<lanes_exchange, 4 * kThreads, 0>},
    {},
};

}  // namespace halfbyte
