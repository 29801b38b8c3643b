#include "../cuda/tensor_map.h"

#include <cstring>

namespace halfbyte {
namespace {

// What the PTX interpreter decodes (engine/testing/ptx) in place of the driver's encoding, which nobody documents.
struct PlainMap {
    uint64_t address;
    uint32_t rank, element_bytes;
    uint64_t sizes[5];    // in elements, innermost first
    uint64_t strides[4];  // in bytes, from the second dimension on
    uint32_t box[5];      // in elements
    uint32_t swizzle, interleave, fill, data_type;  // as the driver numbers them
    uint32_t mark;
};
static_assert(sizeof(PlainMap) == sizeof(TensorMap), "a tensor map has 128 bytes");

constexpr uint32_t kSwizzle128 = 3, kMark = 0x50414d54;  // "TMAP"

}  // namespace

TensorMap tensor_map_of_rows(const void* rows, int row_count, int row_bytes, int64_t stride_bytes, int box_rows) {
    PlainMap plain{};
    plain.address = reinterpret_cast<uintptr_t>(rows);
    plain.rank = 2;
    plain.element_bytes = 1;
    for (auto& size : plain.sizes) size = 1;
    plain.sizes[0] = uint64_t(row_bytes);
    plain.sizes[1] = uint64_t(row_count);
    plain.strides[0] = uint64_t(stride_bytes);
    for (auto& size : plain.box) size = 1;
    plain.box[0] = kBoxBytes;
    plain.box[1] = uint32_t(box_rows);
    plain.swizzle = kSwizzle128;
    plain.mark = kMark;
    TensorMap map;
    std::memcpy(&map, &plain, sizeof(map));
    return map;
}

}  // namespace halfbyte
