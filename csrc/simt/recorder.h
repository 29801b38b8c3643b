// Taking launches instead of running them, so that another engine can run the same kernel on the same arguments.
#pragma once

#include <functional>
#include <string>

#include "../cuda/launch.h"

namespace halfbyte::simt {

// Gets the kernel's mangled name, which is its entry's name in nvcc's PTX of the same source.
using Recorder = std::function<void(const std::string& symbol, const KernelCall& call)>;

// An empty recorder lets launches run again.
void set_recorder(Recorder recorder);

// Whether a recorder took the call.
bool record(const KernelCall& call);

}  // namespace halfbyte::simt
