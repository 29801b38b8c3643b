// One source compiled for several instruction sets.
#pragma once

#if defined(__GNUC__)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define ALWAYS_INLINE inline
#endif

// Between these two, functions are compiled for the named instruction set. Headers of the standard library stay outside: what the
// linker keeps of their inline functions must run on every machine.
#define TARGET_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define TARGET_BEGIN(isa) TARGET_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define TARGET_END TARGET_PRAGMA(clang attribute pop)
#else
#define TARGET_BEGIN(isa) TARGET_PRAGMA(GCC push_options) TARGET_PRAGMA(GCC target isa)
#define TARGET_END TARGET_PRAGMA(GCC pop_options)
#endif

// The loader picks the widest version that this machine has; for plain functions only.
#if defined(__x86_64__) && defined(__linux__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#define MULTIVERSION __attribute__((target_clones("default", "avx2", "avx512f")))
#endif
#endif
#ifndef MULTIVERSION
#define MULTIVERSION
#endif
