// INT8 activations for the op that quantizes alone.
#pragma once

#include "quantize_row.h"

namespace halfbyte {
namespace {

// Below this many elements a second thread costs more than it saves.
constexpr int64_t kElementsPerThread = 1 << 16;

struct QuantizationParts {
    const Quantization& work;
    int parts;
};

template <class Isa>
void quantize_part(const void* context, int part) {
    const auto& [work, parts] = *static_cast<const QuantizationParts*>(context);
    float* inverse_smooth = reinterpret_cast<float*>(thread_scratch((1 + kRowsTogether) * work.k * 4));
    float* y = inverse_smooth + work.k;
    invert(work.smooth, inverse_smooth, work.k);
    const int64_t last = work.m * (part + 1) / parts;
    for (int64_t first = work.m * part / parts; first < last; first += kRowsTogether) {
        const int rows = int(std::min<int64_t>(kRowsTogether, last - first));
        const auto out = [&](int row) {
            return CodeRow<int8_t, 0>{reinterpret_cast<uint8_t*>(work.codes + (first + row) * work.k), 64};
        };
        const auto quantize = [&](const auto* x) {
            quantize_rows<Isa::kFma>(
                x + first * work.k, work.smooth, inverse_smooth, work.shift, y, work.k, rows, work.scales + first, out);
        };
        work.x_bf16 ? quantize(static_cast<const bfloat16*>(work.x)) : quantize(static_cast<const float*>(work.x));
    }
}

template <class Isa>
void quantize(const Quantization& work, int threads) {
    const QuantizationParts split{work, int(std::clamp<int64_t>(work.m * work.k / kElementsPerThread, 1, threads))};
    parallel_parts(split.parts, threads, quantize_part<Isa>, &split);
}

}  // namespace
}  // namespace halfbyte
