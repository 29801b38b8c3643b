// 16 consecutive values of a 16-bit type, in eight words.
#pragma once

#include "ptx.h"

namespace halfbyte {

constexpr int kRun = 16;

DEVICE void split(const Words4& quarter, uint32_t* words) {
    words[0] = quarter.x, words[1] = quarter.y, words[2] = quarter.z, words[3] = quarter.w;
}

// Element size 2 or 4: `kWords` words of `source`, aligned to 16 bytes.
template <int kWords, class T>
DEVICE void load_words(const T* source, uint32_t (&words)[kWords]) {
    UNROLL
    for (int i = 0; i < kWords; i += 4) split(ptx::load_readonly(reinterpret_cast<const Words4*>(source) + i / 4), words + i);
}

template <class T>
DEVICE void unpack_run(const uint32_t (&words)[8], float (&values)[kRun]) {
    UNROLL
    for (int i = 0; i < 8; ++i) ptx::unpack2<T>(words[i], values[2 * i], values[2 * i + 1]);
}

template <class T>
DEVICE void pack_run(const float (&values)[kRun], uint32_t (&words)[8]) {
    UNROLL
    for (int i = 0; i < 8; ++i) words[i] = ptx::pack2<T>(values[2 * i], values[2 * i + 1]);
}

}  // namespace halfbyte
