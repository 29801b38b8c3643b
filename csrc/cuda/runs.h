// Floats whose dtype is known at run time: one at a time, or a run of eight in 16-byte vectors.
#pragma once

#include "floats.h"
#include "ptx.h"

namespace halfbyte {

constexpr int kRun = 8;

// Eight elements as stored; 16-bit ones fill `low`. Loading apart from unpacking lets the loads of several tensors overlap.
struct RunBits {
    Words4 low, high;
};

DEVICE const uint8_t* element(const void* base, int64_t index, Dtype dtype) {
    return static_cast<const uint8_t*>(base) + index * (dtype == Dtype::kFloat ? 4 : 2);
}

DEVICE float load_element(const Floats& tensor, int64_t index) {
    const uint8_t* at = element(tensor.data, index, tensor.dtype);
    if (tensor.dtype == Dtype::kFloat) return ptx::load_readonly(reinterpret_cast<const float*>(at));
    const auto bits = ptx::load_readonly(reinterpret_cast<const uint16_t*>(at));
    return tensor.dtype == Dtype::kHalf ? ptx::to_float(Half{bits}) : ptx::to_float(Bfloat{bits});
}

DEVICE void store_element(void* base, int64_t index, Dtype dtype, float value) {
    if (dtype == Dtype::kFloat) {
        ptx::store(static_cast<float*>(base) + index, value);
    } else {
        const uint16_t bits = dtype == Dtype::kHalf ? ptx::from_float<Half>(value).bits : ptx::from_float<Bfloat>(value).bits;
        ptx::store(static_cast<uint16_t*>(base) + index, bits);
    }
}

// The address of a run must be aligned to 16 bytes.
DEVICE RunBits load_run(const Floats& tensor, int64_t index) {
    const auto* words = reinterpret_cast<const Words4*>(element(tensor.data, index, tensor.dtype));
    RunBits run;
    run.low = ptx::load_readonly(words);
    if (tensor.dtype == Dtype::kFloat) run.high = ptx::load_readonly(words + 1);
    return run;
}

DEVICE void unpack_pair(uint32_t pair, Dtype dtype, float& low, float& high) {
    if (dtype == Dtype::kHalf) {
        ptx::unpack2<Half>(pair, low, high);
    } else {
        ptx::unpack2<Bfloat>(pair, low, high);
    }
}

DEVICE void unpack(const RunBits& run, Dtype dtype, float (&values)[kRun]) {
    const uint32_t low[4] = {run.low.x, run.low.y, run.low.z, run.low.w};
    if (dtype == Dtype::kFloat) {
        const uint32_t high[4] = {run.high.x, run.high.y, run.high.z, run.high.w};
        UNROLL
        for (int i = 0; i < 4; ++i) {
            values[i] = ptx::bits_float(low[i]);
            values[4 + i] = ptx::bits_float(high[i]);
        }
        return;
    }
    UNROLL
    for (int i = 0; i < 4; ++i) unpack_pair(low[i], dtype, values[2 * i], values[2 * i + 1]);
}

template <class T>
DEVICE Words4 rounded_run(const float (&values)[kRun]) {
    return {ptx::pack2<T>(values[0], values[1]), ptx::pack2<T>(values[2], values[3]), ptx::pack2<T>(values[4], values[5]),
            ptx::pack2<T>(values[6], values[7])};
}

DEVICE Words4 float_words(float a, float b, float c, float d) {
    return {ptx::float_bits(a), ptx::float_bits(b), ptx::float_bits(c), ptx::float_bits(d)};
}

DEVICE void store_run(void* base, int64_t index, Dtype dtype, const float (&values)[kRun]) {
    auto* words = reinterpret_cast<Words4*>(const_cast<uint8_t*>(element(base, index, dtype)));
    if (dtype == Dtype::kFloat) {
        ptx::store(words, float_words(values[0], values[1], values[2], values[3]));
        ptx::store(words + 1, float_words(values[4], values[5], values[6], values[7]));
    } else {
        ptx::store(words, dtype == Dtype::kHalf ? rounded_run<Half>(values) : rounded_run<Bfloat>(values));
    }
}

}  // namespace halfbyte
