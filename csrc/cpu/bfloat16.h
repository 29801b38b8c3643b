// bfloat16 as the upper half of a float32.
#pragma once

#include <cstdint>
#include <cstring>

namespace halfbyte {

struct bfloat16 {
    uint16_t bits;
};

inline float to_float(float value) { return value; }

inline float to_float(bfloat16 value) {
    const uint32_t bits = uint32_t(value.bits) << 16;
    float result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}

inline void store(float* out, float value) { *out = value; }

// Round to nearest even; NaN becomes the quiet NaN that PyTorch writes.
inline void store(bfloat16* out, float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    out->bits = uint16_t(value == value ? rounded : 0x7FC0);
}

}  // namespace halfbyte
