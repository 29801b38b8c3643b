// One source, several instruction sets: the loader picks the widest that this machine has.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#define MULTIVERSION __attribute__((target_clones("default", "avx2", "arch=skylake-avx512")))
#endif
#endif
#ifndef MULTIVERSION
#define MULTIVERSION
#endif

// Inlined into every version of its caller, so that it is compiled for the same instruction set.
#if defined(__GNUC__)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define ALWAYS_INLINE inline
#endif
