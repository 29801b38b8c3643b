// RMSNorm of queries and keys and the rotary embedding on any GPU, in one read and one write of each, values copied beside them.
#include "qk_norm_rope.h"

#include "check.h"
#include "rope_pairs.h"

namespace halfbyte {

constexpr int kHeadThreads = 128;
constexpr int kMaxNormThreads = 512;

struct RopeLaunch {
    RopeArguments rope;
    RopeSide sides[kJointSides];
    unsigned first_block[kJointSides];  // of each side; no block of a side that is not there
    int lanes;
};

// The side of this block.
DEVICE int side_of_block(const RopeLaunch& arguments) {
    int side = 0;
    UNROLL
    for (int i = 1; i < kJointSides; ++i) side += blockIdx.x >= arguments.first_block[i];
    return side;
}

// Where the elements of one norm begin in x and y, and which row of cos and sin they turn by.
struct NormPlace {
    int64_t source, destination;
    int position;

    // 32-bit divisions: the host code counts the norms.
    DEVICE NormPlace(const RopeSide& side, const RopeArguments& rope, uint32_t norm, uint32_t norms_of_row) {
        const uint32_t row = norm / norms_of_row, batch = row / uint32_t(side.tokens), token = row % uint32_t(side.tokens);
        const int64_t column = int64_t(norm % norms_of_row) * rope.width;
        position = side.first_token + int(token);
        source = batch * side.batch_stride + token * side.row_stride + column;
        destination = (int64_t(batch) * rope.tokens + position) * (side.heads * rope.width) + column;
    }
};

DEVICE float inverse_rms(float sum_of_squares, int width, float eps) {
    return ptx::reciprocal(ptx::sqrt(ptx::divide(sum_of_squares, float(width)) + eps));
}

// Normalised by `inverse` where there is a weight, whose elements for this head begin at weight_head, then rotated and stored.
DEVICE void finish_pairs(Pairs pairs, const RopeSide& side, const RopeArguments& rope, int64_t head, int weight_head,
                         int position, int unit, float inverse) {
    const PairPlace place(unit, rope.width, rope.half);
    if (side.rotated) {
        const int64_t angle = int64_t(position) * (rope.width / 2) + unit * kPairs;
        const RunBits cos_bits = load_run(rope.cos, angle), sin_bits = load_run(rope.sin, angle);
        if (side.weight.data) {
            const Pairs weight = load_pairs(side.weight, weight_head, place, rope.half);
            UNROLL
            for (int i = 0; i < kPairs; ++i) {
                pairs.first[i] = pairs.first[i] * inverse * weight.first[i];
                pairs.second[i] = pairs.second[i] * inverse * weight.second[i];
            }
        }
        float cos[kRun], sin[kRun];
        unpack(cos_bits, rope.cos.dtype, cos);
        unpack(sin_bits, rope.sin.dtype, sin);
        UNROLL
        for (int i = 0; i < kPairs; ++i) rotate(pairs.first[i], pairs.second[i], cos[i], sin[i]);
    }
    store_pairs(side.y, head, place, side.x.dtype, pairs, rope.half);
}

// A group of lanes per head, each lane with eight pairs: widths that are multiples of 16, up to 512.
KERNEL void LAUNCH_BOUNDS(kHeadThreads, 6) qk_norm_rope_kernel(const GRID_CONSTANT RopeLaunch arguments) {
    const RopeArguments& rope = arguments.rope;
    const int index = side_of_block(arguments);
    const RopeSide& side = arguments.sides[index];
    const int unit = int(threadIdx.x) % arguments.lanes;
    const uint32_t block = blockIdx.x - arguments.first_block[index];
    const uint32_t norm = block * (kHeadThreads / arguments.lanes) + int(threadIdx.x) / arguments.lanes;
    const bool inside = norm < rope.batch * side.tokens * side.heads && unit < rope.width / (2 * kPairs);
    const NormPlace place(side, rope, norm, side.heads);

    Pairs pairs = {};
    if (inside) pairs = load_pairs(side.x, place.source, PairPlace(unit, rope.width, rope.half), rope.half);
    float sum = sum_of_squares(pairs);
    ROLLED
    for (int mask = arguments.lanes / 2; mask; mask /= 2) sum += ptx::shuffle_xor(sum, mask);
    if (!inside) return;
    finish_pairs(pairs, side, rope, place.destination, 0, place.position, unit, inverse_rms(sum, rope.width, rope.eps));
}

// Every thread returns the sum over the block. shared: one float per warp.
DEVICE float block_sum(float sum, uint8_t* shared) {
    UNROLL
    for (int mask = 16; mask; mask /= 2) sum += ptx::shuffle_xor(sum, mask);
    if (threadIdx.x % 32 == 0) ptx::store_shared(shared + threadIdx.x / 32 * 4, sum);
    ptx::barrier();
    float total = 0.0f;
    ROLLED
    for (int warp = 0; warp < int(blockDim.x) / 32; ++warp) total += ptx::load_shared<float>(shared + warp * 4);
    return total;
}

// One pair at a time, for widths that are no multiple of 16.
DEVICE void finish_pair(const RopeSide& side, const RopeArguments& rope, const NormPlace& place, int pair, float inverse) {
    const int half_width = rope.width / 2, in_head = pair % half_width, head = pair / half_width * rope.width;
    const int first = head + (rope.half ? in_head : 2 * in_head), second = first + (rope.half ? half_width : 1);
    float x = load_element(side.x, place.source + first), y = load_element(side.x, place.source + second);
    if (side.weight.data) {
        x = x * inverse * load_element(side.weight, first);
        y = y * inverse * load_element(side.weight, second);
    }
    if (side.rotated) {
        const int64_t angle = int64_t(place.position) * half_width + in_head;
        rotate(x, y, load_element(rope.cos, angle), load_element(rope.sin, angle));
    }
    store_element(side.y, place.destination + first, side.x.dtype, x);
    store_element(side.y, place.destination + second, side.x.dtype, y);
}

// A block per norm: all heads of a token, or one head of any even width.
KERNEL void LAUNCH_BOUNDS(kMaxNormThreads, 1) qk_norm_rows_rope_kernel(const GRID_CONSTANT RopeLaunch arguments) {
    SHARED_MEMORY(shared);
    const RopeArguments& rope = arguments.rope;
    const int index = side_of_block(arguments);
    const RopeSide& side = arguments.sides[index];
    const int heads = side.norm_all_heads ? side.heads : 1;
    const int norm_width = heads * rope.width;
    const NormPlace place(side, rope, blockIdx.x - arguments.first_block[index], side.heads / heads);
    const bool vectors = rope.width % (2 * kPairs) == 0;
    const int units = vectors ? norm_width / kRun : norm_width;

    float sum = 0.0f;
    ROLLED
    for (int unit = int(threadIdx.x); unit < units && side.weight.data; unit += int(blockDim.x)) {
        if (vectors) {
            float values[kRun];
            unpack(load_run(side.x, place.source + unit * kRun), side.x.dtype, values);
            UNROLL
            for (int i = 0; i < kRun; ++i) sum = ptx::fma(values[i], values[i], sum);
        } else {
            const float value = load_element(side.x, place.source + unit);
            sum = ptx::fma(value, value, sum);
        }
    }
    const float inverse = inverse_rms(block_sum(sum, shared), norm_width, rope.eps);
    ROLLED
    for (int unit = int(threadIdx.x); unit < units / 2; unit += int(blockDim.x)) {
        if (!vectors) {
            finish_pair(side, rope, place, unit, inverse);
            continue;
        }
        const int units_of_head = rope.width / (2 * kPairs);
        const int head = unit / units_of_head * rope.width, in_head = unit % units_of_head;
        const Pairs pairs = load_pairs(side.x, place.source + head, PairPlace(in_head, rope.width, rope.half), rope.half);
        finish_pairs(pairs, side, rope, place.destination + head, head, place.position, in_head, inverse);
    }
}

std::string RopeChoice::describe() const {
    return std::to_string(lanes) + (one_head_per_lane_group ? " lanes for each head" : " threads for each norm");
}

RopeChoice choose_qk_norm_rope(int width, int norm_width) {
    constexpr int kUnit = 2 * kPairs;
    const int units = width / kUnit;
    if (norm_width == width && width % kUnit == 0 && units <= 32) {
        int lanes = 1;
        while (lanes < units) lanes *= 2;
        return {true, lanes};
    }
    const int busy = norm_width / (width % kUnit == 0 ? kUnit : 2), warps = (busy + 31) / 32;
    return {false, warps * 32 < kMaxNormThreads ? warps * 32 : kMaxNormThreads};
}

namespace qk {

RopeChoice choice_of(const RopeSide& side, int width) {
    return choose_qk_norm_rope(width, side.norm_all_heads ? side.heads * width : width);
}

int64_t norms_of(const RopeSide& side, const RopeArguments& rope) {
    return rope.batch * side.tokens * (side.norm_all_heads ? 1 : side.heads);
}

void check(const char* name, const RopeSide& side, const RopeArguments& arguments) {
    expect_positive(name, side.heads);
    expect_positive("tokens", side.tokens);
    expect_at_most("tokens", int64_t(side.first_token) + side.tokens, arguments.tokens);
    expect_at_most("width of all heads", int64_t(side.heads) * arguments.width, 1 << 20);
    const bool vectors = arguments.width % (2 * kPairs) == 0;
    const int in_vector = !vectors ? 1 : side.x.dtype == Dtype::kFloat ? 4 : 8;
    expect_multiple("row stride", side.row_stride, in_vector);
    expect_multiple("batch stride", side.batch_stride, in_vector);
    expect_aligned(vectors ? 16 : 4, {{name, side.x.data}, {"output", side.y}, {"weight", side.weight.data, true}});
}

template <size_t kSides>
void check(const std::array<const char*, kSides>& names, const std::array<RopeSide, kSides>& sides,
           const RopeArguments& arguments) {
    expect_positive("B", arguments.batch);
    expect_positive("T", arguments.tokens);
    expect_positive("head width", arguments.width);
    expect_multiple("head width", arguments.width, 2);
    expect_at_most("B", arguments.batch, int64_t(1) << 31);
    int64_t heads = 0;
    for (size_t i = 0; i < kSides; ++i) {
        check(names[i], sides[i], arguments);
        heads += sides[i].heads;
    }
    expect_at_most("heads of all tokens", arguments.batch * arguments.tokens, (int64_t(1) << 31) / heads);
    expect_aligned(arguments.width % (2 * kPairs) == 0 ? 16 : 4, {{"cos", arguments.cos.data}, {"sin", arguments.sin.data}});
}

// All of one choice.
void launch_sides(const RopeSide* sides, int count, const RopeArguments& rope, Stream stream) {
    const RopeChoice choice = choice_of(sides[0], rope.width);
    const int norms_of_block = choice.one_head_per_lane_group ? kHeadThreads / choice.lanes : 1;
    RopeLaunch arguments{rope, {}, {}, choice.lanes};
    unsigned blocks = 0;
    for (int i = 0; i < kJointSides; ++i) {
        arguments.first_block[i] = i < count ? blocks : ~0u;
        if (i >= count) continue;
        arguments.sides[i] = sides[i];
        blocks += unsigned((norms_of(sides[i], rope) + norms_of_block - 1) / norms_of_block);
    }
    if (choice.one_head_per_lane_group) {
        launch(qk_norm_rope_kernel, "qk_norm_rope", {blocks, 1, 1}, kHeadThreads, 0, stream, arguments);
    } else {
        const size_t shared_bytes = choice.lanes / 32 * sizeof(float);
        launch(qk_norm_rows_rope_kernel, "qk_norm_rope", {blocks, 1, 1}, choice.lanes, shared_bytes, stream, arguments);
    }
}

}  // namespace qk

void qk_norm_rope(const RopeSide& q, const RopeSide& k, const RopeArguments& arguments, Stream stream) {
    const std::array<RopeSide, 2> sides{q, k};
    qk::check<2>({"q", "k"}, sides, arguments);
    const RopeChoice of_q = qk::choice_of(q, arguments.width), of_k = qk::choice_of(k, arguments.width);
    if (of_q.one_head_per_lane_group == of_k.one_head_per_lane_group && of_q.lanes == of_k.lanes) {
        qk::launch_sides(sides.data(), 2, arguments, stream);
    } else {
        qk::launch_sides(&q, 1, arguments, stream);
        qk::launch_sides(&k, 1, arguments, stream);
    }
}

void joint_qkv_norm_rope(const std::array<RopeSide, kJointSides>& sides, const RopeArguments& arguments, Stream stream) {
    qk::check<kJointSides>({"first_q", "first_k", "first_v", "second_q", "second_k", "second_v"}, sides, arguments);
    qk::launch_sides(sides.data(), kJointSides, arguments, stream);
}

}  // namespace halfbyte
