#include "parallel.h"

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#if defined(__unix__)
#include <dlfcn.h>
#endif

namespace halfbyte {
namespace {

struct Team {
    std::atomic<int> next{0};
    int parts;
    void (*run)(const void*, int);
    const void* context;
};

void work(void* team_address) {
    Team& team = *static_cast<Team*>(team_address);
    for (int part = team.next++; part < team.parts; part = team.next++) team.run(team.context, part);
}

using OpenmpRegion = void (*)(void (*)(void*), void*, unsigned threads, unsigned flags);

// PyTorch's own OpenMP runtime: its idle threads spin between calls, and a second pool would have to fight them for the cores.
// It is looked up, not linked, because wheels ship it under changing file names.
OpenmpRegion openmp_region() {
#if defined(__unix__)
    static const auto region = reinterpret_cast<OpenmpRegion>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return region;
#else
    return nullptr;
#endif
}

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};

}  // namespace

void parallel_parts(int parts, int threads, void (*run)(const void*, int), const void* context) {
    Team team{{0}, parts, run, context};
    if (threads <= 1 || parts <= 1) return work(&team);
    if (const OpenmpRegion region = openmp_region()) return region(work, &team, unsigned(threads), 0);
    std::vector<std::thread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back(work, &team);
    work(&team);
    for (auto& other : others) other.join();
}

uint8_t* thread_scratch(int64_t bytes) {
    thread_local std::unique_ptr<uint8_t, Free> memory;
    thread_local int64_t size = 0;
    if (bytes > size) {
        const int64_t rounded = (bytes + 4095) / 4096 * 4096;
        memory.reset(static_cast<uint8_t*>(std::aligned_alloc(64, size_t(rounded))));
        size = memory ? rounded : 0;
        if (!memory) throw std::bad_alloc();
    }
    return memory.get();
}

}  // namespace halfbyte
