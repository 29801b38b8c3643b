// Control flow that parts threads and brings them together again.
#include "ptx.h"

namespace halfbyte {

struct ControlArguments {
    const int* in;
    int* out;
    int rounds;
};

// Loops of unlike length within a loop, left and continued from several places; a shuffle needs the whole warp each round.
KERNEL void uneven_loops(ControlArguments arguments) {
    int value = ptx::load(arguments.in + threadIdx.x);
    int sum = 0;
    for (int round = 0; round < arguments.rounds; ++round) {
        int steps = 0;
        for (int n = value + round; n > 1 && steps < 20; ++steps) {
            if (n % 2 == 0) {
                n /= 2;
                continue;
            }
            if (n % 3 == 0) {
                n /= 3;
                if (n % 5 == 0) break;
                continue;
            }
            n = 3 * n + 1;
        }
        sum += ptx::shuffle_xor(steps, 1 + round % 31);
        if (steps % 3 == 1) continue;
        sum += 1000;
        if (steps % 3 == 2) sum ^= 5;
    }
    ptx::store(arguments.out + threadIdx.x, sum);
}

KERNEL void switch_by_lane(ControlArguments arguments) {
    int value = ptx::load(arguments.in + threadIdx.x);
    int result = 0;
    switch (value & 15) {
        case 0: result = value * 3; break;
        case 1: result = value - 7; break;
        case 2: result = ~value;  // falls through
        case 3: result ^= 0x55; break;
        case 4: result = value / 3; break;
        case 5: result = value % 7; break;
        case 6: result = value << 2; break;
        case 7: result = value >> 1; break;
        case 8: result = -value; break;
        default: result = 1;
    }
    ptx::store(arguments.out + threadIdx.x, ptx::shuffle(result, 31 - threadIdx.x % 32));
}

// Blocks of several warps add what the others wrote before the barrier; each block is of its own.
KERNEL void sum_across_warps(ControlArguments arguments) {
    SHARED_MEMORY(shared);
    int* values = reinterpret_cast<int*>(shared);
    int thread = threadIdx.x, first = blockIdx.x * blockDim.x;
    int sum = ptx::load(arguments.in + first + thread);
    for (int distance = blockDim.x / 2; distance > 0; distance /= 2) {
        ptx::store_shared(values + thread, sum);
        ptx::barrier();
        if (thread < distance) sum += ptx::load_shared<int>(values + thread + distance);
        ptx::barrier();
    }
    if (thread == 0) ptx::store(arguments.out + blockIdx.x, sum);
}

}  // namespace halfbyte
