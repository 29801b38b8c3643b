#include "races.h"

#include <array>
#include <memory>
#include <unordered_map>
#include <vector>

namespace halfbyte::simt {
namespace {

// When a thread touched a byte. Barriers and warp_syncs are passed by all threads that they put in order at once, so two
// counters take the place of a vector clock.
struct Moment {
    uint64_t barriers = 0;  // 0: never
    uint32_t syncs = 0;
    uint16_t thread = 0;
    bool several = false;  // threads of this warp, at this moment
    Site site;
};

Moment now(Site site) {
    return {machine.barriers, current_warp().syncs, uint16_t(thread_number()), false, site};
}

bool same_warp(const Moment& a, const Moment& b) { return a.thread / 32 == b.thread / 32; }

// Whether `earlier`, of another thread, is unordered with `later`.
bool unordered(const Moment& earlier, const Moment& later) {
    if (earlier.barriers != later.barriers) return false;
    if (!same_warp(earlier, later)) return true;
    return earlier.syncs == later.syncs && (earlier.several || earlier.thread != later.thread);
}

struct Byte {
    Moment write;
    // The last reads of two different warps: enough to find one that a write of any warp is unordered with.
    Moment reads[2];
    bool copied_into = false;
};

std::vector<Byte> bytes_of_block;

constexpr const char* kAccessNames[] = {"load", "read-only load", "store"};

// The page's bytes written in this launch; block 0 is none.
struct GlobalWrite {
    uint64_t block = 0;
    Moment moment;
};
constexpr uintptr_t kPageBytes = 4096;
std::unordered_map<uintptr_t, std::unique_ptr<std::array<GlobalWrite, kPageBytes>>> pages_of_launch;

uint64_t block_number() {
    return 1 + machine.block.x + machine.grid.x * (machine.block.y + uint64_t(machine.grid.y) * machine.block.z);
}

const char* missing(const Moment& earlier, const Moment& later) {
    return same_warp(earlier, later) ? ", with no barrier or warp_sync between them" : ", with no barrier between them";
}

void remember_read(Byte& byte, const Moment& moment) {
    for (Moment& read : byte.reads) {
        bool stale = read.barriers != moment.barriers;
        if (!stale && !same_warp(read, moment)) continue;
        bool again = !stale && read.syncs == moment.syncs && (read.several || read.thread != moment.thread);
        read = moment;
        read.several = again;
        return;
    }
}

void check_byte(size_t offset, Access access, Site site) {
    Byte& byte = bytes_of_block[offset];
    Moment moment = now(site);
    auto race = [&](const char* with, const Moment& earlier, const char* why) {
        fault(site, std::string("race: this ") + (access == kStore ? "write" : "read") + " of shared byte " +
                        std::to_string(offset) + " meets the " + with + " by thread " + std::to_string(earlier.thread) + " at " +
                        describe(earlier.site) + why);
    };
    if (byte.copied_into) race("cp.async", byte.write, ", which its thread has not waited for");
    if (unordered(byte.write, moment)) race("write", byte.write, missing(byte.write, moment));
    if (access == kStore) {
        for (const Moment& read : byte.reads)
            if (unordered(read, moment)) race("read", read, missing(read, moment));
        byte.write = moment;
    } else {
        remember_read(byte, moment);
    }
}

}  // namespace

void start_launch_races() { pages_of_launch.clear(); }

void start_block_races() { bytes_of_block.assign(machine.shared_bytes, {}); }

void check_shared_race(size_t offset, size_t bytes, Access access, Site site) {
    for (size_t i = 0; i < bytes; ++i) check_byte(offset + i, access, site);
}

void check_global_race(uintptr_t address, size_t bytes, Access access, const std::string& name, size_t offset, Site site) {
    const Moment moment = now(site);
    for (size_t i = 0; i < bytes; ++i) {
        auto& page = pages_of_launch[(address + i) / kPageBytes];
        if (!page) page = std::make_unique<std::array<GlobalWrite, kPageBytes>>();
        GlobalWrite& write = (*page)[(address + i) % kPageBytes];
        bool same_block = write.block == block_number();
        bool same_thread = same_block && write.moment.thread == moment.thread;
        bool in_order = same_thread || (same_block && !unordered(write.moment, moment));
        if (write.block && (access == kReadonlyLoad || !(access == kStore ? same_thread : in_order)))
            fault(site, std::string("race: this ") + kAccessNames[access] + " of byte " + std::to_string(offset + i) + " of " +
                            name + " meets the store by thread " + std::to_string(write.moment.thread) + " of " +
                            (same_block ? "this block" : "another block") + " at " + describe(write.moment.site));
        if (access == kStore) write = {block_number(), moment};
    }
}

void begin_copy(size_t offset, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) bytes_of_block[offset + i].copied_into = true;
}

void end_copy(size_t offset, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) {
        Byte& byte = bytes_of_block[offset + i];
        byte.copied_into = false;
        byte.write = now(byte.write.site);
    }
}

}  // namespace halfbyte::simt
