// Splitting work over the threads that PyTorch computes with.
#pragma once

#include <cstdint>

namespace halfbyte {

// Calls run(context, part) once for every part in [0, parts), on up to `threads` threads at once.
void parallel_parts(int parts, int threads, void (*run)(const void* context, int part), const void* context);

// Memory of this thread, 64-byte aligned, kept for its next call; a second call invalidates the first one's.
uint8_t* thread_scratch(int64_t bytes);

}  // namespace halfbyte
