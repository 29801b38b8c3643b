// Matrix products of a warpgroup, which is 4 warps in a row, the first with a number divisible by 4:
// D (64 x N) += A (64 x K) B (N x K)^T. Both operands lie in shared memory, in rows of 128 bytes swizzled as the copy engine
// leaves them; a and b say where. Thread t of the warpgroup, with w = t / 32, g = t % 32 / 4 and q = t % 4, holds in d[i] row
// 16 w + g + 8 (i / 2 % 2), column 8 (i / 4) + 2 q + i % 2.
// They run asynchronously: between wgmma_fence and wgmma_wait nothing else may touch the sums. PTX ISA 9.7.15.
#pragma once

#include <type_traits>

#include "numbers.h"
#include "ptx_cluster.h"
#include "ptx_memory.h"

namespace halfbyte::ptx {

// Where an operand begins: an address whose rows stand in groups of 8, 1024 bytes apart.
DEVICE uint64_t matrix_descriptor(const void* shared SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("matrix_descriptor");
#else
    constexpr uint64_t kSwizzle128 = uint64_t(1) << 62, kGroupBytes = uint64_t(1024 >> 4) << 32, kUnused = uint64_t(1) << 16;
    return kSwizzle128 | kGroupBytes | kUnused | (shared_address(shared) >> 4);
#endif
}

// The operand 32 bytes times `slices` on along the rows; only the low word changes, whose other fields lie above the address.
DEVICE uint64_t along_rows(uint64_t descriptor, int slices) {
    return (descriptor & 0xffffffff00000000u) | (uint32_t(descriptor) + 2u * uint32_t(slices));
}

// Orders what the threads did to the sums before the products that follow.
DEVICE void wgmma_fence(ONLY_SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("wgmma_fence");
#else
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

DEVICE void wgmma_commit(ONLY_SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("wgmma_commit");
#else
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

// Waits until at most N committed groups are under way.
template <int N>
DEVICE void wgmma_wait(ONLY_SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("wgmma_wait");
#else
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
#endif
}

// The compiler moves no other use of the sums across this place.
template <int kValues>
DEVICE void pin(uint32_t (&d)[kValues]) {
#ifndef HALFBYTE_SIMT
    UNROLL
    for (int i = 0; i < kValues; ++i) asm volatile("" : "+r"(d[i])::"memory");
#endif
}

// A value that is computed anew from here on: what follows from it takes no register while the sums need them all.
DEVICE int fresh(int value) {
#ifndef HALFBYTE_SIMT
    asm volatile("" : "+r"(value));
#endif
    return value;
}

#ifdef HALFBYTE_SIMT
#define WGMMA(instruction, modifiers, kValues) ONLY_INTERPRETED("wgmma")
#else
#define WGMMA_LIST_64 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA_LIST_96 \
    WGMMA_LIST_64 ", " \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define WGMMA_LIST_128 \
    WGMMA_LIST_96 ", " \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define WGMMA_OPERANDS_64 "%64, %65"
#define WGMMA_OPERANDS_96 "%96, %97"
#define WGMMA_OPERANDS_128 "%128, %129"
#define WGMMA_ACCUMULATE_64 "%66"
#define WGMMA_ACCUMULATE_96 "%98"
#define WGMMA_ACCUMULATE_128 "%130"
#define WGMMA_TIED_8(i)                                                                    \
    "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3]),            \
        "+r"(d[i + 4]), "+r"(d[i + 5]), "+r"(d[i + 6]), "+r"(d[i + 7])
#define WGMMA_TIED_32(i) \
    WGMMA_TIED_8(i), WGMMA_TIED_8(i + 8), WGMMA_TIED_8(i + 16), WGMMA_TIED_8(i + 24)
#define WGMMA_TIED_64 WGMMA_TIED_32(0), WGMMA_TIED_32(32)
#define WGMMA_TIED_96 WGMMA_TIED_64, WGMMA_TIED_32(64)
#define WGMMA_TIED_128 WGMMA_TIED_96, WGMMA_TIED_32(96)
#define WGMMA(instruction, modifiers, kValues)                                             \
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, " WGMMA_ACCUMULATE_##kValues ", 0;\n\t"       \
                 "wgmma.mma_async.sync.aligned." instruction " {" WGMMA_LIST_##kValues "}, "          \
                 WGMMA_OPERANDS_##kValues ", p" modifiers ";\n\t}"                                  \
                 : WGMMA_TIED_##kValues                                                    \
                 : "l"(a), "l"(b), "r"(int(accumulate)))
#endif

// 32 codes of K. accumulate: whether the sums had a value, or begin with this product.
DEVICE void wgmma_s8(uint32_t (&d)[64], uint64_t a, uint64_t b, bool accumulate SITE) {
    WGMMA("m64n128k32.s32.s8.s8", "", 64);
}

DEVICE void wgmma_s8(uint32_t (&d)[96], uint64_t a, uint64_t b, bool accumulate SITE) {
    WGMMA("m64n192k32.s32.s8.s8", "", 96);
}

DEVICE void wgmma_s8(uint32_t (&d)[128], uint64_t a, uint64_t b, bool accumulate SITE) {
    WGMMA("m64n256k32.s32.s8.s8", "", 128);
}

// As wgmma_s8, of bits of float32 sums, which keep 13 bits after the point between products.
DEVICE void wgmma_e4m3(uint32_t (&d)[64], uint64_t a, uint64_t b, bool accumulate SITE) {
    WGMMA("m64n128k32.f32.e4m3.e4m3", ", 1, 1", 64);
}

DEVICE void wgmma_e4m3(uint32_t (&d)[96], uint64_t a, uint64_t b, bool accumulate SITE) {
    WGMMA("m64n192k32.f32.e4m3.e4m3", ", 1, 1", 96);
}

// 16 values of K; T: Half or Bfloat. d: bits of float32 sums.
template <class T, int kValues>
DEVICE void wgmma_16bit(uint32_t (&d)[kValues], uint64_t a, uint64_t b SITE) {
    static_assert(kValues == 64 || kValues == 96 || kValues == 128, "128, 192 or 256 columns");
    constexpr bool accumulate = true;
    if constexpr (std::is_same_v<T, Half> && kValues == 64) {
        WGMMA("m64n128k16.f32.f16.f16", ", 1, 1, 0, 0", 64);
    } else if constexpr (std::is_same_v<T, Half> && kValues == 96) {
        WGMMA("m64n192k16.f32.f16.f16", ", 1, 1, 0, 0", 96);
    } else if constexpr (std::is_same_v<T, Half>) {
        WGMMA("m64n256k16.f32.f16.f16", ", 1, 1, 0, 0", 128);
    } else if constexpr (kValues == 64) {
        WGMMA("m64n128k16.f32.bf16.bf16", ", 1, 1, 0, 0", 64);
    } else if constexpr (kValues == 96) {
        WGMMA("m64n192k16.f32.bf16.bf16", ", 1, 1, 0, 0", 96);
    } else {
        WGMMA("m64n256k16.f32.bf16.bf16", ", 1, 1, 0, 0", 128);
    }
}

}  // namespace halfbyte::ptx
