// AVX-512 with VNNI; the low-rank branch runs in float32.
#include "isas.h"

#if defined(__x86_64__)
TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma")
#include "kernel_table.h"
#include "wide_vnni.h"

namespace halfbyte {
namespace {

struct Avx512Vnni : WideVnni {
    static constexpr bool kBf16Dot = false;
};

}  // namespace
}  // namespace halfbyte
TARGET_END

namespace halfbyte {

const Kernels kAvx512Vnni = kernels_of<Avx512Vnni>("avx512_vnni", has_avx512_vnni);

}  // namespace halfbyte
#endif
