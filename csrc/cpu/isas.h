// What every instruction set's file starts from, compiled for any processor: of functions that several files have, the linker keeps
// one, and that one must run everywhere.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "bfloat16.h"
#include "kernels.h"
#include "parallel.h"
#include "partition.h"
#include "target.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace halfbyte {

extern const Kernels kAvx512Bf16, kAvx512Vnni, kAvxVnni, kAvx2, kGeneric;

#if defined(__x86_64__)
inline bool has_avx512_vnni() {
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
}

inline bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif

}  // namespace halfbyte
