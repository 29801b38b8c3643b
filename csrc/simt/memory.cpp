#include "memory.h"

#include <algorithm>
#include <cstdio>

#include "races.h"

namespace halfbyte::simt {

uintptr_t recent_begin = 0, recent_end = 0;

namespace {

std::vector<Range> ranges;

std::string describe(const char* space, Access access, size_t bytes) {
    return std::string(space) + (access == kStore ? " store of " : " load of ") + std::to_string(bytes) + " bytes at ";
}

std::string hexadecimal(uintptr_t address) {
    char text[24];
    std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(address));
    return text;
}

uintptr_t distance(const Range& range, uintptr_t begin, uintptr_t end) {
    if (begin < range.begin) return range.begin - begin;
    return end > range.end ? end - range.end : 0;
}

std::string where_outside(uintptr_t begin, uintptr_t end) {
    if (ranges.empty()) return "has no registered memory to go to";
    const Range& nearest = *std::min_element(ranges.begin(), ranges.end(), [&](const Range& a, const Range& b) {
        return distance(a, begin, end) < distance(b, begin, end);
    });
    std::string bytes = std::to_string(distance(nearest, begin, end)) + " bytes ";
    return "is " + bytes + (begin < nearest.begin ? "before the beginning of " : "beyond the end of ") + nearest.name;
}

struct MatrixLane {
    const uint8_t* row;
    uint32_t* r;
};

// The rows of a matrix are read at once when no two lie in the same four of the 32 banks.
void count_bank_conflicts(MatrixLane* const* lanes) {
    for (int matrix = 0; matrix < 4; ++matrix) {
        unsigned banks = 0;
        for (int row = 0; row < 8; ++row) banks |= 1u << (lanes[8 * matrix + row]->row - machine.shared) / 16 % 8;
        machine.work.bank_conflicts += banks != 0xff;
    }
}

void copy_rows(MatrixLane* const* lanes) {
    count_bank_conflicts(lanes);
    for (int matrix = 0; matrix < 4; ++matrix)
        for (int lane = 0; lane < 32; ++lane)
            std::memcpy(&lanes[lane]->r[matrix], lanes[8 * matrix + lane / 4]->row + 4 * (lane % 4), 4);
}

void copy_columns(MatrixLane* const* lanes) {
    count_bank_conflicts(lanes);
    for (int matrix = 0; matrix < 4; ++matrix)
        for (int lane = 0; lane < 32; ++lane)
            for (int i = 0; i < 2; ++i)
                std::memcpy(reinterpret_cast<uint8_t*>(&lanes[lane]->r[matrix]) + 2 * i,
                            lanes[8 * matrix + 2 * (lane % 4) + i]->row + 2 * (lane / 4), 2);
}

}  // namespace

void register_memory(std::vector<Range> of_call) {
    ranges = std::move(of_call);
    recent_begin = recent_end = 0;
}

void check_global_slowly(const void* global, size_t bytes, Access access, Site site) {
    auto begin = reinterpret_cast<uintptr_t>(global);
    auto inside = std::find_if(ranges.begin(), ranges.end(),
                               [&](const Range& range) { return distance(range, begin, begin + bytes) == 0; });
    if (inside == ranges.end())
        fault(site, describe("global", access, bytes) + hexadecimal(begin) + " " + where_outside(begin, begin + bytes));
    if (begin % bytes)
        fault(site, describe("global", access, bytes) + hexadecimal(begin) + ", byte " + std::to_string(begin - inside->begin) +
                        " of " + inside->name + ", is not aligned to " + std::to_string(bytes) + " bytes");
    recent_begin = inside->begin;
    recent_end = inside->end;
    if (machine.races) check_global_race(begin, bytes, access, inside->name, begin - inside->begin, site);
    if (access == kStore) machine.stored = true;
}

void check_shared_slowly(const void* shared, size_t bytes, Access access, Site site) {
    ptrdiff_t offset = static_cast<const uint8_t*>(shared) - machine.shared;
    auto what = [&] { return describe("shared", access, bytes) + "offset " + std::to_string(offset); };
    if (offset < 0 || offset + bytes > machine.shared_bytes)
        fault(site, what() + " is outside the block's " + std::to_string(machine.shared_bytes) + " bytes");
    if (offset % bytes) fault(site, what() + " is not aligned to " + std::to_string(bytes) + " bytes");
    if (machine.races) check_shared_race(offset, bytes, access, site);
}

void cp_async(void* shared, const void* global, size_t bytes, bool valid, Site site) {
    check_shared(shared, bytes, kStore, site);
    if (valid) check_global(global, bytes, kReadonlyLoad, site);
    Thread& thread = *machine.thread;
    thread.copies.push_back({static_cast<uint8_t*>(shared), valid ? global : nullptr, bytes, thread.open_group, site});
    std::memset(shared, 0xEE, bytes);
    if (machine.races) begin_copy(static_cast<uint8_t*>(shared) - machine.shared, bytes);
}

void cp_async_commit() { ++machine.thread->open_group; }

void cp_async_wait(uint64_t groups_under_way) {
    Thread& thread = *machine.thread;
    auto copy = thread.copies.begin();
    for (; copy != thread.copies.end() && copy->group + groups_under_way < thread.open_group; ++copy) {
        if (copy->global)
            std::memcpy(copy->shared, copy->global, copy->bytes);
        else
            std::memset(copy->shared, 0, copy->bytes);
        if (machine.races) end_copy(copy->shared - machine.shared, copy->bytes);
    }
    thread.copies.erase(thread.copies.begin(), copy);
}

void ldmatrix_x4(uint32_t (&r)[4], const void* shared_row, bool transposed, Site site) {
    check_shared(shared_row, 16, kLoad, site);
    MatrixLane lane{static_cast<const uint8_t*>(shared_row), r};
    if (transposed)
        collective<MatrixLane>("ldmatrix_x4_trans", lane, copy_columns, site);
    else
        collective<MatrixLane>("ldmatrix_x4", lane, copy_rows, site);
}

}  // namespace halfbyte::simt
