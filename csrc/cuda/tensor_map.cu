#include "tensor_map.h"

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstring>
#include <stdexcept>
#include <string>

namespace halfbyte {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// From the driver that the runtime has loaded, so that the extension itself needs no libcuda.
Encode find_encode() {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    constexpr unsigned kFirstVersionWithTensorMaps = 12000;
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kFirstVersionWithTensorMaps,
                                                               cudaEnableDefault, &found);
    if (error == cudaSuccess && found == cudaDriverEntryPointSuccess && function) return reinterpret_cast<Encode>(function);
    cudaGetLastError();
    throw std::runtime_error("cuTensorMapEncodeTiled: a driver for CUDA 12.0 or later needed, got one without it");
}

}  // namespace

TensorMap tensor_map_of_rows(const void* rows, int row_count, int row_bytes, int64_t stride_bytes, int box_rows) {
    static const Encode encode = find_encode();
    const cuuint64_t sizes[] = {cuuint64_t(row_bytes), cuuint64_t(row_count)}, strides[] = {cuuint64_t(stride_bytes)};
    const cuuint32_t box[] = {kBoxBytes, cuuint32_t(box_rows)}, steps[] = {1, 1};
    CUtensorMap encoded;
    const CUresult result =
        encode(&encoded, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, const_cast<void*>(rows), sizes, strides, box, steps,
               CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
               CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        throw std::runtime_error("cuTensorMapEncodeTiled: boxes of " + std::to_string(box_rows) + " rows of " +
                                 std::to_string(row_count) + " x " + std::to_string(row_bytes) + " bytes, " +
                                 std::to_string(stride_bytes) + " apart, refused with error " + std::to_string(int(result)));
    TensorMap map;
    static_assert(sizeof(map) == sizeof(encoded), "a tensor map has 128 bytes");
    std::memcpy(&map, &encoded, sizeof(map));
    return map;
}

}  // namespace halfbyte
