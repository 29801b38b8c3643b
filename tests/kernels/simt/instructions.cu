// One instruction each, run by one warp on registers from x; the results go to y.
#include "checks.h"
#include "cuda/ptx.h"

namespace halfbyte {

// Of one lane. The scales are those of mma_nvfp4.
struct Registers {
    uint32_t a[4], b[2], d[4], sfa, sfb;
};

enum class Instruction { kS4, kU4S4, kS8, kE4m3, kE4m3UnitScaled, kHalf, kBfloat, kNvfp4, kNvfp4Emulated, kNvfp4Lanes, kNvfp4EmulatedLanes };

template <Instruction kInstruction, class Sum>
KERNEL void multiply(const CheckArguments arguments) {
    const auto* x = reinterpret_cast<const uint32_t*>(arguments.x) + threadIdx.x * (sizeof(Registers) / 4);
    auto word = [&](int i) { return ptx::load(x + i); };
    const uint32_t a[4] = {word(0), word(1), word(2), word(3)}, b[2] = {word(4), word(5)};
    Sum d[4];
    for (int i = 0; i < 4; ++i) d[i] = ptx::load(reinterpret_cast<const Sum*>(x) + 6 + i);
    if constexpr (kInstruction == Instruction::kS4) ptx::mma_s4(d, a, b);
    if constexpr (kInstruction == Instruction::kU4S4) ptx::mma_u4s4(d, a, b);
    if constexpr (kInstruction == Instruction::kS8) ptx::mma_s8(d, a, b);
    if constexpr (kInstruction == Instruction::kE4m3) ptx::mma_e4m3(d, a, b);
    if constexpr (kInstruction == Instruction::kE4m3UnitScaled) ptx::mma_e4m3_unit_scaled(d, a, b);
    if constexpr (kInstruction == Instruction::kHalf) ptx::mma_16bit<Half>(d, a, b);
    if constexpr (kInstruction == Instruction::kBfloat) ptx::mma_16bit<Bfloat>(d, a, b);
    if constexpr (kInstruction == Instruction::kNvfp4) ptx::mma_nvfp4(d, a, b, word(10), word(11));
    if constexpr (kInstruction == Instruction::kNvfp4Emulated) ptx::emulated_mma_nvfp4(d, a, b, word(10), word(11));
    if constexpr (kInstruction == Instruction::kNvfp4Lanes) ptx::mma_nvfp4(d, a, b, word(10), word(11), 1, 3);
    if constexpr (kInstruction == Instruction::kNvfp4EmulatedLanes) ptx::emulated_mma_nvfp4(d, a, b, word(10), word(11), 1, 3);
    for (int i = 0; i < 4; ++i) ptx::store(reinterpret_cast<Sum*>(arguments.y) + 4 * threadIdx.x + i, d[i]);
}

// x: 32 rows of 16 bytes.
template <bool kTransposed>
KERNEL void load_matrices(const CheckArguments arguments) {
    SHARED_MEMORY(shared);
    ptx::store_shared(shared + 16 * threadIdx.x, ptx::load(reinterpret_cast<const Words4*>(arguments.x) + threadIdx.x));
    ptx::warp_sync();
    uint32_t r[4];
    if constexpr (kTransposed)
        ptx::ldmatrix_x4_trans(r, shared + 16 * threadIdx.x);
    else
        ptx::ldmatrix_x4(r, shared + 16 * threadIdx.x);
    ptx::store(reinterpret_cast<Words4*>(arguments.y) + threadIdx.x, Words4{r[0], r[1], r[2], r[3]});
}

// x: a source lane and an xor mask.
KERNEL void shuffle_lanes(const CheckArguments arguments) {
    const auto* x = reinterpret_cast<const int*>(arguments.x);
    int lane = threadIdx.x;
    Words2 results{uint32_t(ptx::shuffle(lane, ptx::load(x))), uint32_t(ptx::shuffle_xor(lane, ptx::load(x + 1)))};
    ptx::store(reinterpret_cast<Words2*>(arguments.y) + lane, results);
}

template <Instruction kInstruction, class Sum>
void start_multiply(const CheckArguments& arguments) {
    launch(multiply<kInstruction, Sum>, "multiply", {}, 32, 0, 0, arguments);
}

template <bool kTransposed>
void start_load_matrices(const CheckArguments& arguments) {
    launch(load_matrices<kTransposed>, "load_matrices", {}, 32, 512, 0, arguments);
}

void start_shuffle(const CheckArguments& arguments) { launch(shuffle_lanes, "shuffle_lanes", {}, 32, 0, 0, arguments); }

const NamedCheck kInstructions[] = {
    {"mma_s4", start_multiply<Instruction::kS4, int>},
    {"mma_u4s4", start_multiply<Instruction::kU4S4, int>},
    {"mma_s8", start_multiply<Instruction::kS8, int>},
    {"mma_e4m3", start_multiply<Instruction::kE4m3, float>},
    {"mma_e4m3_unit_scaled", start_multiply<Instruction::kE4m3UnitScaled, float>},
    {"mma_16bit<Half>", start_multiply<Instruction::kHalf, float>},
    {"mma_16bit<Bfloat>", start_multiply<Instruction::kBfloat, float>},
    {"mma_nvfp4", start_multiply<Instruction::kNvfp4, float>},
    {"emulated_mma_nvfp4", start_multiply<Instruction::kNvfp4Emulated, float>},
    {"mma_nvfp4, other lanes", start_multiply<Instruction::kNvfp4Lanes, float>},
    {"emulated_mma_nvfp4, other lanes", start_multiply<Instruction::kNvfp4EmulatedLanes, float>},
    {"ldmatrix_x4", start_load_matrices<false>},
    {"ldmatrix_x4_trans", start_load_matrices<true>},
    {"shuffle", start_shuffle},
    {},
};

}  // namespace halfbyte
