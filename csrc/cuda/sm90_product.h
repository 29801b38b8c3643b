// What the codes are: their matrix instruction, and how long its sums stay exact enough.
#pragma once

#include "ptx_wgmma.h"
#include "tensor_map.h"

namespace halfbyte {

constexpr int kUnlimitedBoxes = 1 << 30;

struct Int8Warpgroup {
    static constexpr int kBoxesOfSum = kUnlimitedBoxes;

    DEVICE static float value(uint32_t sum) { return float(int(sum)); }

    template <int kValues>
    DEVICE static void add(uint32_t (&sums)[kValues], uint64_t a, uint64_t b, bool accumulate) {
        ptx::wgmma_s8(sums, a, b, accumulate);
    }
};

// The tensor cores cut the sum after every product, so after 512 columns it moves into float32.
struct E4m3Warpgroup {
    static constexpr int kBoxesOfSum = 512 / kBoxBytes;

    DEVICE static float value(uint32_t sum) { return ptx::bits_float(sum); }

    template <int kValues>
    DEVICE static void add(uint32_t (&sums)[kValues], uint64_t a, uint64_t b, bool accumulate) {
        ptx::wgmma_e4m3(sums, a, b, accumulate);
    }
};

}  // namespace halfbyte
