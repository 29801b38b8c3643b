// The functions of one instruction set.
#pragma once

#include "convolution.h"
#include "linear.h"
#include "quantize.h"

namespace halfbyte {
namespace {

template <class Isa>
constexpr Kernels kernels_of(const char* isa, bool (*supported)()) {
    return {isa, supported, packed_bytes<Isa>, pack<Isa>, quantize<Isa>, linear<Isa>, convolve<Isa>};
}

}  // namespace
}  // namespace halfbyte
