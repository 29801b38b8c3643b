// One INT4 matrix instruction an iteration: native up to sm_89, a subroutine of INT8 ones after it.
extern "C" __global__ void int4_product(int* out, const int* codes, int steps) {
    int d[4] = {};
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
        const int a = codes[step];
        asm volatile("mma.sync.aligned.m16n8k64.row.col.s32.s4.s4.s32 {%0,%1,%2,%3}, {%4,%4,%4,%4}, {%4,%4}, {%0,%1,%2,%3};"
                     : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]) : "r"(a));
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) out[4 * threadIdx.x + i] = d[i];
}
