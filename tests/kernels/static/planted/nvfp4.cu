// One block-scaled NVFP4 matrix instruction an iteration, inside a second loop.
extern "C" __global__ void nvfp4(float* out, const int* codes, int steps, int tiles) {
    float d[4] = {};
#pragma unroll 1
    for (int tile = 0; tile < tiles; ++tile) {
        __syncthreads();
#pragma unroll 1
        for (int step = 0; step < steps; ++step) {
            const int a = codes[step + tile];
            asm volatile(
                "mma.sync.aligned.m16n8k64.row.col.kind::mxf4nvf4.block_scale.scale_vec::4X.f32.e2m1.e2m1.f32.ue4m3 "
                "{%0,%1,%2,%3}, {%4,%4,%4,%4}, {%4,%4}, {%0,%1,%2,%3}, {%4}, {0,0}, {%4}, {0,0};"
                : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a));
        }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) out[4 * threadIdx.x + i] = d[i];
}
