// The simulated machine: one block runs at a time, each of its CUDA threads on its own stack.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <stdexcept>
#include <string>
#include <vector>

namespace halfbyte::simt {

using Site = std::source_location;

struct Index {
    unsigned x = 0, y = 0, z = 0;
};

// What was wrong with the kernel, in one sentence.
struct Fault : std::runtime_error {
    using std::runtime_error::runtime_error;
};

enum Order {
    kInterleaved,   // another warp after every rendezvous, in an order shuffled each round
    kRunToBarrier,  // one warp as far as it gets before the next
};

struct Options {
    uint64_t seed = 0;
    Order order = kInterleaved;
    bool races = false;
};

// What launches did, for kernels whose results do not show that they did too much.
struct Work {
    uint64_t products = 0;        // matrix instructions, of whole warps
    uint64_t bank_conflicts = 0;  // matrices that ldmatrix could not read at once
    uint64_t global_accesses = 0, shared_accesses = 0;  // of single threads
};

struct Copy {
    uint8_t* shared;
    const void* global;  // null: zeros
    size_t bytes;
    uint64_t group;
    Site site;
};

enum class State : uint8_t { kWaiting, kReturned };

struct Warp;

struct Thread {
    void* stack_pointer;
    Warp* warp;
    unsigned lane;
    Index index;
    State state;  // of a thread that cannot run
    Site site;    // of the rendezvous that it waits at
    const char* operation;
    std::vector<Copy> copies;  // under way, oldest first
    uint64_t open_group;
};

struct Warp {
    Thread* threads;   // of its 32 lanes
    uint32_t ready;    // one bit per lane
    uint32_t arrived;  // at the collective
    unsigned last_lane;
    const char* operation;
    Site site;
    void* arguments[32];
    uint32_t syncs;  // since the last barrier
};

// Of the launch under way; run by every thread on its own stack.
struct Body {
    void (*run_thread)(const void* kernel, const void* arguments);
    const void* kernel;
    const void* arguments;
};

// All that changes while another stack runs is in here: to the compiler, an object private to one source file cannot change
// over a switch of stacks.
struct Machine {
    Options options;
    Work work;
    const char* kernel = "";
    bool running = false;  // a launch
    Index grid, block, block_size;
    uint8_t* shared = nullptr;
    size_t shared_bytes = 0;
    Thread* thread = nullptr;  // the running one
    bool races = false;
    bool stored = false;   // to global memory, by the block; known while races are looked for
    uint64_t barriers = 0;  // that the block has come to, its start among them
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    unsigned returned = 0, at_barrier = 0;  // threads
    Body body;
    void* scheduler_stack = nullptr;
    std::string fault_sentence;
};

extern Machine machine;

inline unsigned thread_number() { return machine.thread->index.x; }
inline Warp& current_warp() { return *machine.thread->warp; }

// Ends the launch: launch() throws a Fault whose sentence names the kernel, the site, the running thread and `what`.
std::string describe(const char* file, unsigned line);
inline std::string describe(Site site) { return describe(site.file_name(), site.line()); }

// `place`: of the source, as describe() writes it.
[[noreturn]] void fault(const std::string& place, const std::string& what);
[[noreturn]] inline void fault(Site site, const std::string& what) { fault(describe(site), what); }

// Options of the launches that follow.
void configure(const Options& options);

void barrier(Site site);
void warp_sync(Site site);

// The last of the warp's lanes to arrive gets the lanes' arguments and calls leave_collective() when it has acted on them;
// the others get null, after that.
void** enter_collective(void* lane, const char* operation, Site site);
void leave_collective();

template <class Lane>
inline void collective(const char* operation, Lane& lane, void (*act)(Lane* const* lanes), Site site) {
    if (void** lanes = enter_collective(&lane, operation, site)) {
        act(reinterpret_cast<Lane* const*>(lanes));
        leave_collective();
    }
}

template <class T>
struct ShuffleLane {
    T value, result;
    unsigned source;
};

template <class T>
inline T shuffle(const char* operation, T value, unsigned source, Site site) {
    ShuffleLane<T> lane{value, value, source};
    collective<ShuffleLane<T>>(
        operation, lane,
        [](ShuffleLane<T>* const* lanes) {
            for (int i = 0; i < 32; ++i) lanes[i]->result = lanes[lanes[i]->source]->value;
        },
        site);
    return lane.result;
}

}  // namespace halfbyte::simt
