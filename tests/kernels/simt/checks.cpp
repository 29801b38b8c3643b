// The checks' C interface, for ctypes.
#include "checks.h"

#include <cstring>
#include <string>

#include "cuda/ptx.h"
#include "simt/memory.h"
#include "simt/recorder.h"

using namespace halfbyte;

namespace {

const NamedCheck* find(const char* name) {
    for (const NamedCheck* list : {kPipelines, kFaultyKernels, kInstructions})
        for (const NamedCheck* check = list; check->name; ++check)
            if (!std::strcmp(check->name, name)) return check;
    return nullptr;
}

template <class From, class To, To (*kConvert)(From)>
void convert_all(const void* x, void* y, int64_t count) {
    for (int64_t i = 0; i < count; ++i) static_cast<To*>(y)[i] = kConvert(static_cast<const From*>(x)[i]);
}

template <class T>
uint32_t pack_twice(float x) {
    return ptx::pack2<T>(x, -x);
}

template <class T>
float unpack_high(uint32_t pair) {
    float low, high;
    ptx::unpack2<T>(pair << 16, low, high);
    return high;
}

struct NamedConversion {
    const char* name;
    void (*convert)(const void* x, void* y, int64_t count);
};

const NamedConversion kConversions[] = {
    {"from_float<Half>", convert_all<float, Half, ptx::from_float<Half>>},
    {"from_float<Bfloat>", convert_all<float, Bfloat, ptx::from_float<Bfloat>>},
    {"to_float<Half>", convert_all<Half, float, ptx::to_float>},
    {"to_float<Bfloat>", convert_all<Bfloat, float, ptx::to_float>},
    {"pack2<Half>", convert_all<float, uint32_t, pack_twice<Half>>},
    {"pack2<Bfloat>", convert_all<float, uint32_t, pack_twice<Bfloat>>},
    {"unpack2<Half>", convert_all<uint32_t, float, unpack_high<Half>>},
    {"unpack2<Bfloat>", convert_all<uint32_t, float, unpack_high<Bfloat>>},
    {"to_e4m3", convert_all<float, uint8_t, ptx::to_e4m3>},
    {"from_e4m3", convert_all<uint8_t, float, ptx::from_e4m3>},
    {"to_e2m1", convert_all<float, uint8_t, ptx::to_e2m1>},
    {"from_e2m1", convert_all<uint32_t, float, ptx::from_e2m1>},
    {"exp", convert_all<float, float, ptx::exp>},
    {"tanh", convert_all<float, float, ptx::tanh>},
    {"erf", convert_all<float, float, ptx::erf>},
};

}  // namespace

extern "C" {

void configure(uint64_t seed, bool run_to_barrier, bool races) {
    simt::configure({seed, run_to_barrier ? simt::kRunToBarrier : simt::kInterleaved, races});
}

// The sentence of the fault; empty where the kernel ended well.
const char* run(const char* name, const uint8_t* x, size_t x_bytes, uint8_t* y, size_t y_bytes) {
    static std::string sentence;
    sentence.clear();
    auto begin = [](const void* address) { return reinterpret_cast<uintptr_t>(address); };
    simt::register_memory({{"x", begin(x), begin(x) + x_bytes}, {"y", begin(y), begin(y) + y_bytes}});
    try {
        find(name)->start({x, y});
    } catch (const simt::Fault& fault) {
        sentence = fault.what();
    }
    return sentence.c_str();
}

// The mangled name of the kernel that the check would have started.
const char* symbol_of(const char* name) {
    static std::string found;
    simt::set_recorder([](const std::string& symbol, const KernelCall& call) {
        found = symbol + " " + std::to_string(call.argument_bytes) + " " + std::to_string(call.threads);
    });
    find(name)->start({});
    simt::set_recorder({});
    return found.c_str();
}

void convert(const char* name, const void* x, void* y, int64_t count) {
    for (const NamedConversion& conversion : kConversions)
        if (!std::strcmp(conversion.name, name)) conversion.convert(x, y, count);
}

}  // extern "C"
