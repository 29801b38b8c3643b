// How the copy engine of sm_90 and later finds a box of a matrix: encoded on the host, passed to the kernel by value.
#pragma once

#include <cstddef>
#include <cstdint>

namespace halfbyte {

struct alignas(64) TensorMap {
    uint64_t words[16];
};

constexpr int kBoxBytes = 128;  // of a row

// Boxes of box_rows rows and kBoxBytes bytes, laid out in shared memory with the 128-byte swizzle. What lies outside the matrix
// is read as zero and not written.
// row_bytes: a multiple of 16, as stride_bytes, from row to row. Allocates nothing and waits for nothing.
// Raises std::runtime_error where the driver is missing or refuses.
TensorMap tensor_map_of_rows(const void* rows, int row_count, int row_bytes, int64_t stride_bytes, int box_rows);

}  // namespace halfbyte
