// Starting a kernel: on a stream of the current CUDA device, or in the host shim. Needs no CUDA header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace halfbyte {

using Stream = uintptr_t;  // cudaStream_t; 0 is the default stream

struct Grid {
    unsigned x = 1, y = 1, z = 1;
};

struct KernelCall {
    const void* kernel;
    const char* name;
    Grid grid;
    int threads;
    size_t shared_bytes;
    Stream stream;
    const void* arguments;  // the struct that the kernel takes by value
    size_t argument_bytes;
#ifdef HALFBYTE_SIMT
    void (*run_thread)(const void* kernel, const void* arguments) = nullptr;
#endif
};

// Of the current device.
int multiprocessors();

// How many clusters of so many blocks the current device runs at a time, for a kernel that declares them; at least 1.
// Raises std::runtime_error when the device cannot say.
int clusters_at_once(const void* kernel, int blocks, int threads, size_t shared_bytes);

// Queues the kernel; allocates nothing and waits for nothing. Raises std::runtime_error when it cannot be started.
void launch(const KernelCall& call);

template <class Arguments>
void launch(void (*kernel)(Arguments), const char* name, Grid grid, int threads, size_t shared_bytes, Stream stream,
            const Arguments& arguments) {
    KernelCall call{reinterpret_cast<const void*>(kernel), name, grid, threads, shared_bytes, stream, &arguments,
                    sizeof(Arguments)};
#ifdef HALFBYTE_SIMT
    call.run_thread = [](const void* kernel, const void* arguments) {
        reinterpret_cast<void (*)(Arguments)>(const_cast<void*>(kernel))(*static_cast<const Arguments*>(arguments));
    };
#endif
    launch(call);
}

}  // namespace halfbyte
