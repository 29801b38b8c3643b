// Argument checks of the host code: each throws std::invalid_argument with the operand, what was needed and what came.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

namespace halfbyte {

inline void expect(bool holds, const std::string& sentence) {
    if (!holds) throw std::invalid_argument(sentence);
}

inline void expect_positive(const char* name, int64_t value) {
    expect(value > 0, std::string(name) + ": a positive size needed, got " + std::to_string(value));
}

inline void expect_multiple(const char* name, int64_t value, int64_t multiple) {
    expect(value % multiple == 0,
           std::string(name) + ": a multiple of " + std::to_string(multiple) + " needed, got " + std::to_string(value));
}

inline void expect_at_most(const char* name, int64_t value, int64_t limit) {
    expect(value <= limit, std::string(name) + ": at most " + std::to_string(limit) + " needed, got " + std::to_string(value));
}

struct Operand {
    const char* name;
    const void* pointer;
    bool optional = false;
};

// Every operand that is there must be aligned; only optional ones may be absent.
inline void expect_aligned(int alignment, std::initializer_list<Operand> operands) {
    for (const Operand& operand : operands) {
        expect(operand.pointer || operand.optional, std::string(operand.name) + ": a tensor needed, got none");
        const auto rest = reinterpret_cast<uintptr_t>(operand.pointer) % uintptr_t(alignment);
        expect(rest == 0, std::string(operand.name) + ": an address aligned to " + std::to_string(alignment) +
                              " bytes needed, got one that is " + std::to_string(rest) + " beyond");
    }
}

}  // namespace halfbyte
