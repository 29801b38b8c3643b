#include "../cuda/launch.h"

#include <algorithm>
#include <mutex>
#include <numeric>

#include "races.h"
#include "recorder.h"
#include "scheduler.h"

namespace halfbyte {
namespace simt {
namespace {

constexpr size_t kMostSharedBytes = 227 * 1024;  // of sm_90, the most of any device
constexpr int kMostThreads = 1024;
constexpr uint64_t kMostBlocksAcross = 65535;

void check(const KernelCall& call) {
    auto refuse = [&](const std::string& what) { throw Fault(std::string(call.name) + ": " + what); };
    if (call.threads < 32 || call.threads > kMostThreads || call.threads % 32)
        refuse("a block has 32 to 1024 threads in whole warps, not " + std::to_string(call.threads));
    if (call.shared_bytes > kMostSharedBytes)
        refuse("a block has at most " + std::to_string(kMostSharedBytes) + " bytes of shared memory, not " +
               std::to_string(call.shared_bytes));
    if (!call.grid.x || !call.grid.y || !call.grid.z || call.grid.x > 0x7fffffffu || call.grid.y > kMostBlocksAcross ||
        call.grid.z > kMostBlocksAcross)
        refuse("a grid of " + std::to_string(call.grid.x) + " x " + std::to_string(call.grid.y) + " x " +
               std::to_string(call.grid.z) + " blocks cannot be started");
}

uint8_t* shared_memory() {
    alignas(1024) static uint8_t memory[kMostSharedBytes];
    return memory;
}

// The result is right without it, so nothing else would show that the grid is too large.
void refuse_idle_block(const KernelCall& call) {
    const Index& block = machine.block;
    throw Fault(std::string(call.name) + ": block (" + std::to_string(block.x) + ", " + std::to_string(block.y) + ", " +
                std::to_string(block.z) + ") of " + std::to_string(call.grid.x) + " x " + std::to_string(call.grid.y) + " x " +
                std::to_string(call.grid.z) + " stores nothing");
}

struct Running {
    Running() { machine.running = true; }
    ~Running() { machine.running = false; }
};

void run(const KernelCall& call) {
    const Running running;
    std::mt19937_64 random(machine.options.seed);
    machine.kernel = call.name;
    machine.grid = {call.grid.x, call.grid.y, call.grid.z};
    machine.block_size = {unsigned(call.threads), 1, 1};
    machine.shared = shared_memory();
    machine.shared_bytes = call.shared_bytes;
    machine.races = machine.options.races;
    if (machine.races) start_launch_races();

    std::vector<uint64_t> blocks(uint64_t(call.grid.x) * call.grid.y * call.grid.z);
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), random);
    for (uint64_t i : blocks) {
        machine.block = {unsigned(i % call.grid.x), unsigned(i / call.grid.x % call.grid.y),
                         unsigned(i / call.grid.x / call.grid.y)};
        machine.stored = false;
        run_block({call.run_thread, call.kernel, call.arguments}, call.threads, random);
        if (machine.races && !machine.stored) refuse_idle_block(call);
    }
}

}  // namespace

void configure(const Options& options) { machine.options = options; }

}  // namespace simt

// Few, so that kernels whose blocks stay for several tiles do so in small products too.
int multiprocessors() { return 4; }
int clusters_at_once(const void*, int, int, size_t shared_bytes) { return int(simt::kMostSharedBytes / shared_bytes); }

void launch(const KernelCall& call) {
    static std::mutex one_machine;
    std::lock_guard<std::mutex> lock(one_machine);
    simt::check(call);
    if (!simt::record(call)) simt::run(call);
}

}  // namespace halfbyte
