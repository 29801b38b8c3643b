// RMSNorm of queries and keys and the rotary embedding on any GPU, in one read and one write of each.
#include "qk_norm_rope.h"

#include "check.h"
#include "rope_pairs.h"

namespace halfbyte {

constexpr int kHeadThreads = 128;
constexpr int kMaxNormThreads = 512;

struct RopeLaunch {
    RopeArguments rope;
    RopeSide sides[2];
    int64_t groups_of_first;  // heads, or norms, of sides[0]; those of sides[1] follow
    int64_t groups;
    int lanes;
};

DEVICE float inverse_rms(float sum_of_squares, int width, float eps) {
    return ptx::reciprocal(ptx::sqrt(ptx::divide(sum_of_squares, float(width)) + eps));
}

// Normalised by `inverse` where there is a weight, whose elements for this head begin at weight_head, then rotated and stored.
DEVICE void finish_pairs(Pairs pairs, const RopeSide& side, const RopeArguments& rope, int64_t head, int weight_head, int token,
                         int unit, float inverse) {
    const PairPlace place(unit, rope.width, rope.half);
    const int64_t angle = int64_t(token) * (rope.width / 2) + unit * kPairs;
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
    store_pairs(side.y, head, place, side.x.dtype, pairs, rope.half);
}

// A group of lanes per head, each lane with eight pairs: widths that are multiples of 16, up to 512.
KERNEL void LAUNCH_BOUNDS(kHeadThreads, 6) qk_norm_rope_kernel(RopeLaunch arguments) {
    const RopeArguments& rope = arguments.rope;
    const int unit = int(threadIdx.x) % arguments.lanes;
    int64_t group = int64_t(blockIdx.x) * (kHeadThreads / arguments.lanes) + int(threadIdx.x) / arguments.lanes;
    const bool inside = group < arguments.groups && unit < rope.width / (2 * kPairs);
    const bool second = group >= arguments.groups_of_first;
    if (second) group -= arguments.groups_of_first;
    const RopeSide& side = arguments.sides[second];
    const int64_t head = group * rope.width;

    Pairs pairs = {};
    if (inside) pairs = load_pairs(side.x, head, PairPlace(unit, rope.width, rope.half), rope.half);
    float sum = sum_of_squares(pairs);
    ROLLED
    for (int mask = arguments.lanes / 2; mask; mask /= 2) sum += ptx::shuffle_xor(sum, mask);
    if (!inside) return;
    const int token = int(group / side.heads % rope.tokens);
    finish_pairs(pairs, side, rope, head, 0, token, unit, inverse_rms(sum, rope.width, rope.eps));
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
DEVICE void finish_pair(const RopeSide& side, const RopeArguments& rope, int64_t norm_start, int pair, int token, float inverse) {
    const int half_width = rope.width / 2, in_head = pair % half_width, head = pair / half_width * rope.width;
    const int first = head + (rope.half ? in_head : 2 * in_head), second = first + (rope.half ? half_width : 1);
    float x = load_element(side.x, norm_start + first), y = load_element(side.x, norm_start + second);
    if (side.weight.data) {
        x = x * inverse * load_element(side.weight, first);
        y = y * inverse * load_element(side.weight, second);
    }
    const int64_t angle = int64_t(token) * half_width + in_head;
    rotate(x, y, load_element(rope.cos, angle), load_element(rope.sin, angle));
    store_element(side.y, norm_start + first, side.x.dtype, x);
    store_element(side.y, norm_start + second, side.x.dtype, y);
}

// A block per norm: all heads of a token, or one head of any even width.
KERNEL void LAUNCH_BOUNDS(kMaxNormThreads, 1) qk_norm_rows_rope_kernel(RopeLaunch arguments) {
    SHARED_MEMORY(shared);
    const RopeArguments& rope = arguments.rope;
    int64_t group = blockIdx.x;
    const bool second = group >= arguments.groups_of_first;
    if (second) group -= arguments.groups_of_first;
    const RopeSide& side = arguments.sides[second];
    const int heads = side.norm_all_heads ? side.heads : 1;
    const int norm_width = heads * rope.width;
    const int64_t norm_start = group * norm_width;
    const int token = int(group / (side.heads / heads) % rope.tokens);
    const bool vectors = rope.width % (2 * kPairs) == 0;
    const int units = vectors ? norm_width / kRun : norm_width;

    float sum = 0.0f;
    ROLLED
    for (int unit = int(threadIdx.x); unit < units && side.weight.data; unit += int(blockDim.x)) {
        if (vectors) {
            float values[kRun];
            unpack(load_run(side.x, norm_start + unit * kRun), side.x.dtype, values);
            UNROLL
            for (int i = 0; i < kRun; ++i) sum = ptx::fma(values[i], values[i], sum);
        } else {
            const float value = load_element(side.x, norm_start + unit);
            sum = ptx::fma(value, value, sum);
        }
    }
    const float inverse = inverse_rms(block_sum(sum, shared), norm_width, rope.eps);
    ROLLED
    for (int unit = int(threadIdx.x); unit < units / 2; unit += int(blockDim.x)) {
        if (!vectors) {
            finish_pair(side, rope, norm_start, unit, token, inverse);
            continue;
        }
        const int units_of_head = rope.width / (2 * kPairs);
        const int head = unit / units_of_head * rope.width, in_head = unit % units_of_head;
        const Pairs pairs = load_pairs(side.x, norm_start + head, PairPlace(in_head, rope.width, rope.half), rope.half);
        finish_pairs(pairs, side, rope, norm_start + head, head, token, in_head, inverse);
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

int64_t groups_of(const RopeSide& side, int64_t rows) { return side.norm_all_heads ? rows : rows * side.heads; }

void check(const char* name, const RopeSide& side, const RopeArguments& arguments) {
    expect_positive(name, side.heads);
    expect_at_most("width of all heads", int64_t(side.heads) * arguments.width, 1 << 20);
    const int alignment = arguments.width % (2 * kPairs) == 0 ? 16 : 4;
    expect_aligned(alignment, {{name, side.x.data}, {"output", side.y}, {"weight", side.weight.data, true}});
}

void launch_sides(const RopeSide& first, const RopeSide* second, const RopeArguments& rope, Stream stream) {
    const RopeChoice choice = choice_of(first, rope.width);
    const int64_t groups_of_first = groups_of(first, rope.rows);
    const int64_t groups = groups_of_first + (second ? groups_of(*second, rope.rows) : 0);
    const RopeLaunch arguments{rope, {first, second ? *second : first}, groups_of_first, groups, choice.lanes};
    if (choice.one_head_per_lane_group) {
        const int heads = kHeadThreads / choice.lanes;
        const Grid grid{unsigned((groups + heads - 1) / heads), 1, 1};
        launch(qk_norm_rope_kernel, "qk_norm_rope", grid, kHeadThreads, 0, stream, arguments);
    } else {
        const size_t shared_bytes = choice.lanes / 32 * sizeof(float);
        launch(qk_norm_rows_rope_kernel, "qk_norm_rope", {unsigned(groups), 1, 1}, choice.lanes, shared_bytes, stream, arguments);
    }
}

}  // namespace qk

void qk_norm_rope(const RopeSide& q, const RopeSide& k, const RopeArguments& arguments, Stream stream) {
    expect_positive("rows", arguments.rows);
    expect_positive("T", arguments.tokens);
    expect_positive("head width", arguments.width);
    expect_multiple("head width", arguments.width, 2);
    expect_multiple("rows", arguments.rows, arguments.tokens);
    qk::check("q", q, arguments);
    qk::check("k", k, arguments);
    expect_at_most("heads of q and k", arguments.rows * (q.heads + k.heads), int64_t(1) << 31);
    expect_aligned(arguments.width % (2 * kPairs) == 0 ? 16 : 4, {{"cos", arguments.cos.data}, {"sin", arguments.sin.data}});
    const RopeChoice of_q = qk::choice_of(q, arguments.width), of_k = qk::choice_of(k, arguments.width);
    if (of_q.one_head_per_lane_group == of_k.one_head_per_lane_group && of_q.lanes == of_k.lanes) {
        qk::launch_sides(q, &k, arguments, stream);
    } else {
        qk::launch_sides(q, nullptr, arguments, stream);
        qk::launch_sides(k, nullptr, arguments, stream);
    }
}

}  // namespace halfbyte
