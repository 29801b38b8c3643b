// Per iteration: 2 matrix instructions, 1 ldmatrix, 4 conversions, 8 multiplications, 1 asynchronous copy, 1 barrier.
extern "C" __global__ void known_mix(float* out, const int* global, int steps) {
    extern __shared__ int shared[];
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared + 4 * threadIdx.x));
    int d[4] = {};
    float f[4] = {};
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
        int a[4];
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global + 4 * step));
        __syncthreads();
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(address));
#pragma unroll
        for (int i = 0; i < 2; ++i)
            asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                         : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[i]), "r"(a[i + 1]));
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float value;
            asm volatile("cvt.rn.f32.s32 %0, %1;" : "=f"(value) : "r"(d[i]));
            asm volatile("mul.rn.f32 %0, %1, %1;" : "=f"(value) : "f"(value));
            asm volatile("mul.rn.f32 %0, %1, %2;" : "=f"(f[i]) : "f"(value), "f"(f[i]));
        }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) out[4 * threadIdx.x + i] = f[i];
}
