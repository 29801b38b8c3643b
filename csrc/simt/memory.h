// Checked accesses to the memory of the simulated machine.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "machine.h"

namespace halfbyte::simt {

struct Range {
    std::string name;
    uintptr_t begin, end;
};

// The global memory that kernels may touch, instead of what was registered before.
void register_memory(std::vector<Range> ranges);

enum Access { kLoad, kReadonlyLoad, kStore };

// The range of the last access, tried first.
extern uintptr_t recent_begin, recent_end;

void check_global_slowly(const void* global, size_t bytes, Access access, Site site);
void check_shared_slowly(const void* shared, size_t bytes, Access access, Site site);

inline void check_global(const void* global, size_t bytes, Access access, Site site) {
    ++machine.work.global_accesses;
    auto begin = reinterpret_cast<uintptr_t>(global);
    bool fine = begin >= recent_begin && begin + bytes <= recent_end && begin % bytes == 0;
    if (!fine || machine.races) [[unlikely]]
        check_global_slowly(global, bytes, access, site);
}

inline void check_shared(const void* shared, size_t bytes, Access access, Site site) {
    ++machine.work.shared_accesses;
    size_t offset = static_cast<const uint8_t*>(shared) - machine.shared;
    bool fine = offset + bytes <= machine.shared_bytes && offset + bytes >= bytes && offset % bytes == 0;
    if (!fine || machine.races) [[unlikely]]
        check_shared_slowly(shared, bytes, access, site);
}

template <class T>
inline T load_global(const T* global, Access access, Site site) {
    check_global(global, sizeof(T), access, site);
    return *global;
}

template <class T>
inline void store_global(T* global, const T& value, Site site) {
    check_global(global, sizeof(T), kStore, site);
    *global = value;
}

template <class T>
inline T load_shared(const void* shared, Site site) {
    check_shared(shared, sizeof(T), kLoad, site);
    T value;
    std::memcpy(&value, shared, sizeof(T));
    return value;
}

template <class T>
inline void store_shared(void* shared, const T& value, Site site) {
    check_shared(shared, sizeof(T), kStore, site);
    std::memcpy(shared, &value, sizeof(T));
}

// The destination is poison (0xEE) until the issuing thread has waited for the copy's group. bytes: 8 or 16.
void cp_async(void* shared, const void* global, size_t bytes, bool valid, Site site);
void cp_async_commit();
void cp_async_wait(uint64_t groups_under_way);

void ldmatrix_x4(uint32_t (&r)[4], const void* shared_row, bool transposed, Site site);

}  // namespace halfbyte::simt
