// The instruction sets that were compiled in, widest first.
#include "isas.h"

namespace halfbyte {

const Kernels* const kKernels[] = {
#if defined(__x86_64__)
    &kAvx512Bf16,
    &kAvx512Vnni,
    &kAvxVnni,
    &kAvx2,
#endif
    &kGeneric,
    nullptr,
};

}  // namespace halfbyte
