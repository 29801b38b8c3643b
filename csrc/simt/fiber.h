// Switching between stacks, for x86-64 and the System V calling convention.
#pragma once

#include <cstdint>

#ifndef __x86_64__
#error "the SIMT shim switches stacks in x86-64 assembly; build it on that machine"
#endif

namespace halfbyte::simt {

// A stack that begins in `entry`, which must never return.
inline void* new_stack(uint8_t* top, void (*entry)()) {
    auto* words = reinterpret_cast<uint64_t*>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t(15));
    *--words = 0;  // entry's return address: ends a debugger's backtrace
    *--words = reinterpret_cast<uint64_t>(entry);
    return words;
}

// Continues on stack `load`, and returns when someone switches back to what is left in *save. A jump instead of a return,
// so that the processor's prediction of returns stays in step.
inline __attribute__((always_inline)) void switch_stacks(void** save, void* load) {
    asm volatile(
        "leaq -128(%%rsp), %%rsp\n\t"  // below the red zone
        "pushq %%rbp\n\t"
        "pushq %%rbx\n\t"
        "leaq 1f(%%rip), %%rax\n\t"
        "pushq %%rax\n\t"
        "movq %%rsp, (%0)\n\t"
        "movq %1, %%rsp\n\t"
        "popq %%rax\n\t"
        "jmp *%%rax\n\t"
        "1:\n\t"
        "popq %%rbx\n\t"
        "popq %%rbp\n\t"
        "leaq 128(%%rsp), %%rsp\n\t"
        : "+D"(save), "+S"(load)
        :
        : "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4",
          "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "memory", "cc");
}

}  // namespace halfbyte::simt
