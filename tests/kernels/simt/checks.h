// What the checks' kernels work on, and the lists by which Python names them.
#pragma once

#include <cstdint>

#include "cuda/launch.h"

namespace halfbyte {

struct CheckArguments {
    const uint8_t* x;
    uint8_t* y;
};

struct NamedCheck {
    const char* name;
    void (*start)(const CheckArguments& arguments);
};

// Ends with an empty name.
extern const NamedCheck kPipelines[];
extern const NamedCheck kFaultyKernels[];
extern const NamedCheck kInstructions[];

}  // namespace halfbyte
