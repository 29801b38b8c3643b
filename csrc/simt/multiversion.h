// One source, several instruction sets: the loader picks the widest that this machine has.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define MULTIVERSION __attribute__((target_clones("default", "avx2", "arch=x86-64-v4")))
#else
#define MULTIVERSION __attribute__((target_clones("default", "avx2", "avx512f")))
#endif
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
