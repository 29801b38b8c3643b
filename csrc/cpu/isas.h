// What every instruction set's file starts from.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels.h"
#include "target.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace halfbyte {

extern const Kernels kAvx512Bf16, kAvx512Vnni, kAvxVnni, kAvx2, kGeneric;

}  // namespace halfbyte
