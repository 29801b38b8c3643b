// INT8 activations with one scale per row, and the way back from the INT32 product.
#include <cmath>
#include <limits>
#include <vector>

#include "cpu_kernels.h"
#include "multiversion.h"
#include "parallel.h"

namespace {

constexpr float kLargest = 127.0f;
// Adding and subtracting 1.5 * 2^23 rounds a small float to the nearest integer, ties to even.
constexpr float kRounder = 12582912.0f;
// One code of headroom keeps 127 * scale finite.
constexpr float kScaleLimit = std::numeric_limits<float>::max() / 128;

inline float scale_of(uint32_t peak_bits) {
    float peak;
    std::memcpy(&peak, &peak_bits, sizeof peak);
    const float scale = peak / kLargest;
    if (scale == 0) return 1;
    return scale > kScaleLimit ? kScaleLimit : scale;
}

// The magnitude bits of a float order like the float, and NaN above infinity: an integer maximum vectorizes and keeps NaN.
inline uint32_t magnitude_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits & 0x7FFFFFFF;
}

template <typename T>
ALWAYS_INLINE void quantize_row(
    const T* x, const float* smooth, float shift, int8_t* codes, float* scale, float* y, int64_t columns) {
    uint32_t peak = 0;
    if (smooth) {
        for (int64_t i = 0; i < columns; ++i) y[i] = (to_float(x[i]) + shift) / smooth[i];
    } else {
        for (int64_t i = 0; i < columns; ++i) y[i] = to_float(x[i]) + shift;
    }
    for (int64_t i = 0; i < columns; ++i) {
        const uint32_t bits = magnitude_bits(y[i]);
        peak = bits > peak ? bits : peak;
    }
    const float step = *scale = scale_of(peak);
    for (int64_t i = 0; i < columns; ++i) {
        float code = y[i] / step;
        code = code > kLargest ? kLargest : code;
        code = code < -kLargest ? -kLargest : code;
        code = code == code ? code : 0;
        codes[i] = int8_t(int32_t((code + kRounder) - kRounder));
    }
}

template <typename T>
ALWAYS_INLINE void rescale_row(
    const int32_t* accumulator, float ascale, const float* wscales, const float* bias, T* out, int64_t columns) {
    if (bias) {
        for (int64_t i = 0; i < columns; ++i) store(out + i, float(accumulator[i]) * ascale * wscales[i] + bias[i]);
    } else {
        for (int64_t i = 0; i < columns; ++i) store(out + i, float(accumulator[i]) * ascale * wscales[i]);
    }
}

template <typename T>
struct Quantize {
    const T* x;
    const float* smooth;
    float shift;
    int8_t* codes;
    float* scales;
    int64_t columns;

    ALWAYS_INLINE void run(int64_t first, int64_t last) const {
        std::vector<float> y(columns);
        for (int64_t row = first; row < last; ++row)
            quantize_row(x + row * columns, smooth, shift, codes + row * columns, scales + row, y.data(), columns);
    }
};

template <typename T>
struct Rescale {
    const int32_t* accumulator;
    const float* ascales;
    const float* wscales;
    const float* bias;
    T* out;
    int64_t columns;

    ALWAYS_INLINE void run(int64_t first, int64_t last) const {
        for (int64_t row = first; row < last; ++row)
            rescale_row(accumulator + row * columns, ascales[row], wscales, bias, out + row * columns, columns);
    }
};

// The compiler clones plain functions for several instruction sets, but no templates and no overloads.
MULTIVERSION void quantize_float32(const Quantize<float>& rows, int64_t first, int64_t last) { rows.run(first, last); }
MULTIVERSION void quantize_bfloat16(const Quantize<bfloat16>& rows, int64_t first, int64_t last) { rows.run(first, last); }
MULTIVERSION void rescale_float32(const Rescale<float>& rows, int64_t first, int64_t last) { rows.run(first, last); }
MULTIVERSION void rescale_bfloat16(const Rescale<bfloat16>& rows, int64_t first, int64_t last) { rows.run(first, last); }

void run(const Quantize<float>& rows, int64_t first, int64_t last) { quantize_float32(rows, first, last); }
void run(const Quantize<bfloat16>& rows, int64_t first, int64_t last) { quantize_bfloat16(rows, first, last); }
void run(const Rescale<float>& rows, int64_t first, int64_t last) { rescale_float32(rows, first, last); }
void run(const Rescale<bfloat16>& rows, int64_t first, int64_t last) { rescale_bfloat16(rows, first, last); }

}  // namespace

template <typename T>
void quantize_int8(
    const T* x, const float* smooth, float shift, int8_t* codes, float* scales, int64_t rows, int64_t columns, int threads) {
    const Quantize<T> work{x, smooth, shift, codes, scales, columns};
    parallel_rows(rows, columns, threads, [=](int64_t first, int64_t last) { run(work, first, last); });
}

template <typename T>
void rescale_int32(
    const int32_t* accumulator, const float* ascales, const float* wscales, const float* bias, T* out, int64_t rows,
    int64_t columns, int threads) {
    const Rescale<T> work{accumulator, ascales, wscales, bias, out, columns};
    parallel_rows(rows, columns, threads, [=](int64_t first, int64_t last) { run(work, first, last); });
}

template void quantize_int8(const float*, const float*, float, int8_t*, float*, int64_t, int64_t, int);
template void quantize_int8(const bfloat16*, const float*, float, int8_t*, float*, int64_t, int64_t, int);
template void rescale_int32(const int32_t*, const float*, const float*, const float*, float*, int64_t, int64_t, int);
template void rescale_int32(const int32_t*, const float*, const float*, const float*, bfloat16*, int64_t, int64_t, int);
