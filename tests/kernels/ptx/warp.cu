// ldmatrix of four 8x8 matrices that lie row after row in shared memory.
#include "ptx.h"

namespace halfbyte {

struct MatrixArguments {
    const Words4* rows;  // 32 rows of 16 bytes
    uint32_t* out;       // [4, 32]
};

template <class Load>
DEVICE void deal_out(const MatrixArguments& arguments, Load load) {
    SHARED_MEMORY(shared);
    uint8_t* row = shared + threadIdx.x * sizeof(Words4);
    ptx::store_shared(row, ptx::load(arguments.rows + threadIdx.x));
    ptx::warp_sync();
    uint32_t matrices[4];
    load(matrices, row);
    for (int i = 0; i < 4; ++i) ptx::store(arguments.out + 32 * i + threadIdx.x, matrices[i]);
}

KERNEL void ldmatrix_rows(MatrixArguments arguments) {
    deal_out(arguments, [](uint32_t (&r)[4], const void* row) { ptx::ldmatrix_x4(r, row); });
}

KERNEL void ldmatrix_transposed(MatrixArguments arguments) {
    deal_out(arguments, [](uint32_t (&r)[4], const void* row) { ptx::ldmatrix_x4_trans(r, row); });
}

}  // namespace halfbyte
