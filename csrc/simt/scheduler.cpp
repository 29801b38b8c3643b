#include "scheduler.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <utility>

#include "fiber.h"
#include "races.h"

namespace halfbyte::simt {

Machine machine;

namespace {

// Not a multiple of 4096, so that the stacks' hot ends do not fall into the same cache sets.
constexpr size_t kStackBytes = 64 * 1024 + 320;
constexpr int kMostThreads = 1024;

uint8_t* stacks() {
    static uint8_t* memory = [] {
        void* pages = mmap(nullptr, kStackBytes * kMostThreads, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (pages == MAP_FAILED) throw Fault("the SIMT shim could not allocate its stacks");
        return static_cast<uint8_t*>(pages);
    }();
    return memory;
}

void resume(void** save, Warp& warp, unsigned lane) {
    warp.last_lane = lane;
    machine.thread = warp.threads + lane;
    switch_stacks(save, machine.thread->stack_pointer);
}

// The next lane that can run, in turn.
unsigned next_lane(const Warp& warp) {
    unsigned start = (warp.last_lane + 1) % 32;
    return (start + std::countr_zero(std::rotr(warp.ready, start))) % 32;
}

// Leaves the running thread until it is resumed: to its warp's next lane, or to the scheduler where that has none.
void suspend(Warp& warp) {
    void** save = &machine.thread->stack_pointer;
    if (warp.ready)
        resume(save, warp, next_lane(warp));
    else
        switch_stacks(save, machine.scheduler_stack);
}

void yield_to_scheduler() { switch_stacks(&machine.thread->stack_pointer, machine.scheduler_stack); }

// Takes the running thread out of those that can run.
void wait_at(const char* operation, Site site, Warp& warp) {
    Thread& thread = *machine.thread;
    thread.state = State::kWaiting;
    thread.operation = operation;
    thread.site = site;
    warp.ready &= ~(1u << machine.thread->lane);
}

bool same_place(Site a, Site b) {
    bool same_file = a.file_name() == b.file_name() || !std::strcmp(a.file_name(), b.file_name());
    return same_file && a.line() == b.line();
}

void thread_main() {
    const Body& body = machine.body;
    body.run_thread(body.kernel, body.arguments);
    Warp& warp = current_warp();
    machine.thread->state = State::kReturned;
    warp.ready &= ~(1u << machine.thread->lane);
    ++machine.returned;
    suspend(warp);
    __builtin_unreachable();
}

void start_block(int threads, std::mt19937_64& random) {
    machine.threads.resize(threads);
    machine.warps.resize(threads / 32);
    for (int i = 0; i < threads; ++i) {
        Thread& thread = machine.threads[i];
        thread.warp = &machine.warps[i / 32];
        thread.lane = i % 32;
        thread.index = {unsigned(i), 0, 0};
        thread.copies.clear();
        thread.open_group = 0;
        thread.stack_pointer = new_stack(stacks() + kStackBytes * (i + 1), thread_main);
    }
    for (size_t i = 0; i < machine.warps.size(); ++i) {
        Warp& warp = machine.warps[i] = {};
        warp.threads = &machine.threads[32 * i];
        warp.ready = ~0u;
        warp.last_lane = random() % 32;
    }
    machine.returned = machine.at_barrier = 0;
    machine.barriers = 1;
    if (machine.races) start_block_races();
    std::memset(machine.shared, 0xCD, machine.shared_bytes);
}

std::string ranges(const std::vector<unsigned>& numbers) {
    std::string text;
    for (size_t first = 0, last; first < numbers.size(); first = last + 1) {
        for (last = first; last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1;) ++last;
        text += (text.empty() ? "" : ", ") + std::to_string(numbers[first]);
        if (last > first) text += "-" + std::to_string(numbers[last]);
    }
    return (numbers.size() == 1 ? "thread " : "threads ") + text;
}

// Who waits where: one clause per place.
std::string describe_waiting() {
    std::vector<std::pair<std::string, std::vector<unsigned>>> places;
    for (const Thread& thread : machine.threads) {
        std::string place = thread.state == State::kReturned
                                ? "returned"
                                : std::string("wait in ") + thread.operation + " at " + describe(thread.site);
        auto found = std::find_if(places.begin(), places.end(), [&](const auto& p) { return p.first == place; });
        if (found == places.end()) found = places.insert(places.end(), {place, {}});
        found->second.push_back(thread.index.x);
    }
    std::string text;
    for (const auto& [place, numbers] : places) text += (text.empty() ? "" : "; ") + ranges(numbers) + " " + place;
    return text;
}

std::string sentence(const std::string& place, const std::string& what) {
    const Index& block = machine.block;
    return std::string(machine.kernel) + ", " + place + ", thread " + std::to_string(thread_number()) + " of block (" +
           std::to_string(block.x) + ", " + std::to_string(block.y) + ", " + std::to_string(block.z) + "): " + what;
}

[[noreturn]] void report_deadlock() {
    machine.thread = &*std::find_if(machine.threads.begin(), machine.threads.end(),
                                    [](const Thread& thread) { return thread.state != State::kReturned; });
    throw Fault(sentence(describe(machine.thread->site), "deadlock, no thread can go on: " + describe_waiting()));
}

void run_warp(Warp& warp) {
    resume(&machine.scheduler_stack, warp, next_lane(warp));
    if (!machine.fault_sentence.empty()) throw Fault(std::exchange(machine.fault_sentence, {}));
}

}  // namespace

std::string describe(const char* path, unsigned line) {
    std::string file = path;
    return file.substr(file.rfind('/') + 1) + ":" + std::to_string(line);
}

void fault(const std::string& place, const std::string& what) {
    // The stack is left as it is: nothing on a kernel's stack needs a destructor.
    machine.fault_sentence = sentence(place, what);
    yield_to_scheduler();
    __builtin_unreachable();
}

void barrier(Site site) {
    Warp& warp = current_warp();
    if (++machine.at_barrier < machine.threads.size()) {
        wait_at("barrier", site, warp);
        suspend(warp);
        return;
    }
    for (Warp& other : machine.warps) {
        other.ready = ~0u;
        other.syncs = 0;
    }
    machine.at_barrier = 0;
    ++machine.barriers;
    yield_to_scheduler();
}

void** enter_collective(void* lane, const char* operation, Site site) {
    Warp& warp = current_warp();
    unsigned number = machine.thread->lane;
    if (!warp.arrived) {
        warp.operation = operation;
        warp.site = site;
    } else if (warp.operation != operation || !same_place(warp.site, site)) {
        fault(site, std::string("divergence: this lane came to ") + operation + " while others of its warp wait in " +
                        warp.operation + " at " + describe(warp.site));
    }
    warp.arguments[number] = lane;
    warp.arrived |= 1u << number;
    if (warp.arrived == ~0u) return warp.arguments;
    wait_at(operation, site, warp);
    suspend(warp);
    return nullptr;
}

void leave_collective() {
    Warp& warp = current_warp();
    warp.arrived = 0;
    warp.ready = ~0u;
    if (machine.options.order == kInterleaved && machine.warps.size() > 1) yield_to_scheduler();
}

void warp_sync(Site site) {
    struct Nothing {
    } nothing;
    collective<Nothing>("warp_sync", nothing, [](Nothing* const*) { ++current_warp().syncs; }, site);
}

void run_block(const Body& body, int threads, std::mt19937_64& random) {
    machine.body = body;
    start_block(threads, random);
    std::vector<int> order(machine.warps.size());
    std::iota(order.begin(), order.end(), 0);
    while (machine.returned < unsigned(threads)) {
        bool progress = false;
        std::shuffle(order.begin(), order.end(), random);
        for (int i : order) {
            if (!machine.warps[i].ready) continue;
            run_warp(machine.warps[i]);
            progress = true;
        }
        if (!progress) report_deadlock();
    }
}

}  // namespace halfbyte::simt
