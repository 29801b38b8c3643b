// A weight in the order in which one instruction set reads it: panels of kColumns output channels, and in a panel step after step
// of K, each step holding the codes that one dot instruction takes. Padding is zero.
#pragma once

#include "isas.h"

namespace halfbyte {
namespace {

constexpr int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// A step is one 4-byte element of activations; loops are unrolled by this many.
constexpr int64_t kStepsTogether = 4;

template <class Isa>
struct Layout {
    static constexpr int kColumns = Isa::kVectors * Isa::Vector::kLanes;

    int64_t panels, steps, low_steps, down_steps, down_panels;
    int64_t panel_bytes, up_bytes, down_bytes;
    int64_t corrections, wscales, up, down, bytes;

    explicit Layout(const WeightShape& shape) {
        const bool pairs = shape.bf16 && Isa::kBf16Dot;
        panels = round_up(shape.n, kColumns) / kColumns;
        steps = round_up(shape.k, kStepsTogether * Isa::kCodesPerStep) / Isa::kCodesPerStep;
        low_steps = pairs ? round_up(shape.rank, 2) / 2 : shape.rank;
        down_steps = pairs ? round_up(shape.k, 2) / 2 : shape.k;
        down_panels = round_up(shape.rank, kColumns) / kColumns;
        panel_bytes = steps * kColumns * Isa::kCodesPerStep;
        up_bytes = low_steps * kColumns * 4;
        down_bytes = down_steps * kColumns * 4;
        corrections = panels * panel_bytes;
        wscales = corrections + panels * kColumns * 4;
        up = wscales + panels * kColumns * 4;
        down = up + panels * up_bytes;
        bytes = down + down_panels * down_bytes;
    }
};

template <class Isa>
void pack_codes(const WeightShape& shape, const int8_t* qweight, const Layout<Isa>& layout, uint8_t* packed) {
    constexpr int kColumns = Layout<Isa>::kColumns, kCodes = Isa::kCodesPerStep;
    for (int64_t panel = 0; panel < layout.panels; ++panel) {
        for (int column = 0; column < kColumns; ++column) {
            const int64_t row = panel * kColumns + column;
            int8_t* out = reinterpret_cast<int8_t*>(packed) + panel * layout.panel_bytes + column * kCodes;
            int32_t sum = 0;
            for (int64_t i = 0; i < layout.steps * kCodes; ++i) {
                const int8_t code = row < shape.n && i < shape.k ? qweight[row * shape.k + i] : 0;
                out[i / kCodes * kColumns * kCodes + i % kCodes] = code;
                sum += code;
            }
            // Activation codes are shifted into the unsigned range where the instruction wants that; this shifts the product back.
            const int32_t correction = -Isa::kCodeOffset * sum;
            std::memcpy(packed + layout.corrections + row * 4, &correction, 4);
        }
    }
}

// The matrix value(row, column) [rows, columns] as panels of kColumns rows, elements of `pairs` ? 2 bfloat16 : 1 float32 a step.
template <int kColumns, class Value>
void pack_factor(int64_t rows, int64_t columns, int64_t steps, bool pairs, uint8_t* out, Value value) {
    for (int64_t first = 0; first < rows; first += kColumns) {
        for (int64_t step = 0; step < steps; ++step) {
            for (int64_t row = first; row < first + kColumns; ++row, out += 4) {
                const auto at = [&](int64_t column) { return row < rows && column < columns ? value(row, column) : 0.0f; };
                if (pairs) {
                    store(reinterpret_cast<bfloat16*>(out), at(2 * step));
                    store(reinterpret_cast<bfloat16*>(out) + 1, at(2 * step + 1));
                } else {
                    store(reinterpret_cast<float*>(out), at(step));
                }
            }
        }
    }
}

template <class Isa, typename T>
void pack_branch(const WeightShape& shape, const Weight& weight, const Layout<Isa>& layout, uint8_t* packed) {
    constexpr int kColumns = Layout<Isa>::kColumns;
    const bool pairs = shape.bf16 && Isa::kBf16Dot;
    const T *up = static_cast<const T*>(weight.proj_up), *down = static_cast<const T*>(weight.proj_down);
    pack_factor<kColumns>(shape.n, shape.rank, layout.low_steps, pairs, packed + layout.up, [&](int64_t row, int64_t column) {
        return to_float(up[row * shape.rank + column]);
    });
    // Without proj_down the caller has low_rank_act already, and its place stays empty.
    if (!down) return;
    pack_factor<kColumns>(shape.rank, shape.k, layout.down_steps, pairs, packed + layout.down, [&](int64_t row, int64_t column) {
        return to_float(down[column * shape.rank + row]);
    });
}

template <class Isa>
int64_t packed_bytes(const WeightShape& shape) {
    return Layout<Isa>(shape).bytes;
}

template <class Isa>
void pack(const WeightShape& shape, const Weight& weight, uint8_t* packed) {
    const Layout<Isa> layout(shape);
    pack_codes<Isa>(shape, weight.qweight, layout, packed);
    std::memset(packed + layout.wscales, 0, size_t(layout.up - layout.wscales));
    std::memcpy(packed + layout.wscales, weight.wscales, size_t(shape.n * 4));
    if (!shape.rank) return;
    if (shape.bf16) {
        pack_branch<Isa, bfloat16>(shape, weight, layout, packed);
    } else {
        pack_branch<Isa, float>(shape, weight, layout, packed);
    }
}

}  // namespace
}  // namespace halfbyte
