// Loads, stores, asynchronous copies and ldmatrix. The host checks bounds and alignment of each access.
#pragma once

#include "platform.h"

#ifdef HALFBYTE_SIMT
#include "../simt/memory.h"
#endif

namespace halfbyte::ptx {

#ifndef HALFBYTE_SIMT
template <int kBytes>
struct Carrier;
template <>
struct Carrier<1> {
    using Type = unsigned char;
};
template <>
struct Carrier<2> {
    using Type = unsigned short;
};
template <>
struct Carrier<4> {
    using Type = unsigned int;
};
template <>
struct Carrier<8> {
    using Type = uint2;
};
template <>
struct Carrier<16> {
    using Type = uint4;
};

DEVICE uint32_t shared_address(const void* shared) { return uint32_t(__cvta_generic_to_shared(shared)); }
#endif

// T: trivially copyable of 1, 2, 4, 8 or 16 bytes, aligned to its size.
template <class T>
DEVICE T load(const T* global SITE) {
#ifdef HALFBYTE_SIMT
    return simt::load_global(global, simt::kLoad, site);
#else
    return *global;
#endif
}

// For memory that no thread writes during the launch.
template <class T>
DEVICE T load_readonly(const T* global SITE) {
#ifdef HALFBYTE_SIMT
    return simt::load_global(global, simt::kReadonlyLoad, site);
#else
    using Word = typename Carrier<sizeof(T)>::Type;
    Word word = __ldg(reinterpret_cast<const Word*>(global));
    T value;
    __builtin_memcpy(&value, &word, sizeof(T));
    return value;
#endif
}

template <class T>
DEVICE void store(T* global, T value SITE) {
#ifdef HALFBYTE_SIMT
    simt::store_global(global, value, site);
#else
    *global = value;
#endif
}

template <class T>
DEVICE T load_shared(const void* shared SITE) {
#ifdef HALFBYTE_SIMT
    return simt::load_shared<T>(shared, site);
#else
    return *static_cast<const T*>(shared);
#endif
}

template <class T>
DEVICE void store_shared(void* shared, T value SITE) {
#ifdef HALFBYTE_SIMT
    simt::store_shared(shared, value, site);
#else
    *static_cast<T*>(shared) = value;
#endif
}

// The address `count` rows of row_bytes on, in one instruction; left to itself the compiler multiplies in 64 bits.
template <class T>
DEVICE const T* row_at(const T* rows, int count, int row_bytes) {
#ifdef HALFBYTE_SIMT
    return reinterpret_cast<const T*>(reinterpret_cast<uintptr_t>(rows) + int64_t(count) * row_bytes);
#else
    const T* result;
    asm("mad.wide.s32 %0, %1, %2, %3;" : "=l"(result) : "r"(count), "r"(row_bytes), "l"(rows));
    return result;
#endif
}

// 16 bytes, to be read after cp_async_wait and a barrier; zeros, and no read of `global`, unless valid.
DEVICE void cp_async_16(void* shared, const void* global, bool valid SITE) {
#ifdef HALFBYTE_SIMT
    simt::cp_async(shared, global, 16, valid, site);
#else
    int source_bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(source_bytes)
                 : "memory");
#endif
}

// As cp_async_16, of 8 bytes.
DEVICE void cp_async_8(void* shared, const void* global, bool valid SITE) {
#ifdef HALFBYTE_SIMT
    simt::cp_async(shared, global, 8, valid, site);
#else
    int source_bytes = valid ? 8 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(source_bytes)
                 : "memory");
#endif
}

DEVICE void cp_async_commit() {
#ifdef HALFBYTE_SIMT
    simt::cp_async_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most N of this thread's committed groups are under way.
template <int N>
DEVICE void cp_async_wait() {
#ifdef HALFBYTE_SIMT
    simt::cp_async_wait(N);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

// Four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8 (16 bytes). r[i] gets
// elements 2 (l % 4) and 2 (l % 4) + 1 of row l / 4 of matrix i.
DEVICE void ldmatrix_x4(uint32_t (&r)[4], const void* shared_row SITE) {
#ifdef HALFBYTE_SIMT
    simt::ldmatrix_x4(r, shared_row, false, site);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(shared_row))
                 : "memory");
#endif
}

// As ldmatrix_x4, of the transposed matrices: r[i] gets rows 2 (l % 4) and 2 (l % 4) + 1 of column l / 4.
DEVICE void ldmatrix_x4_trans(uint32_t (&r)[4], const void* shared_row SITE) {
#ifdef HALFBYTE_SIMT
    simt::ldmatrix_x4(r, shared_row, true, site);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(shared_row))
                 : "memory");
#endif
}

}  // namespace halfbyte::ptx
