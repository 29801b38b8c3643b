#include "recorder.h"

#include <dlfcn.h>

#include <utility>

#include "machine.h"

namespace halfbyte::simt {
namespace {

Recorder recorder;

std::string symbol_of(const KernelCall& call) {
    Dl_info info;
    if (!dladdr(call.kernel, &info) || !info.dli_sname || info.dli_saddr != call.kernel)
        throw Fault(std::string(call.name) + ": the kernel has no visible symbol, so its launch cannot be recorded");
    return info.dli_sname;
}

}  // namespace

void set_recorder(Recorder next) { recorder = std::move(next); }

bool record(const KernelCall& call) {
    if (!recorder) return false;
    recorder(symbol_of(call), call);
    return true;
}

}  // namespace halfbyte::simt
