// What -fsanitize has compiled into the kernels calls these: faults of plain C++ that a GPU would not report either.
#include <cstdint>
#include <string>

#include "machine.h"

namespace halfbyte::simt {
namespace {

// As GCC lays it out at the beginning of everything it passes.
struct SourceLocation {
    const char* file;
    uint32_t line, column;
};

void report(const void* data, const std::string& what) {
    const auto* at = static_cast<const SourceLocation*>(data);
    const std::string place = describe(at->file, at->line);
    // Host code has no stack to leave.
    if (!machine.running) throw Fault(place + ": " + what);
    fault(place, what);
}

std::string number(void* value) { return std::to_string(reinterpret_cast<intptr_t>(value)); }

}  // namespace
}  // namespace halfbyte::simt

extern "C" {

void __ubsan_handle_out_of_bounds(void* data, void* index) {
    halfbyte::simt::report(data, "index " + halfbyte::simt::number(index) + " is outside its array");
}

void __ubsan_handle_shift_out_of_bounds(void* data, void* value, void* count) {
    halfbyte::simt::report(data, "a shift of " + halfbyte::simt::number(value) + " by " + halfbyte::simt::number(count) +
                                     " bits, which is undefined");
}

// Of an access to a local or static object, past its end.
void __ubsan_handle_type_mismatch_v1(void* data, void*) {
    halfbyte::simt::report(data, "an access outside the object it belongs to");
}
}
