// A tensor of floats as a kernel's argument.
#pragma once

#include "dtype.h"

namespace halfbyte {

struct Floats {
    const void* data;  // null when there is none
    Dtype dtype;
};

}  // namespace halfbyte
