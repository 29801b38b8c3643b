// The tiled matrix product: a pipeline of asynchronous copies over K, then over the ranks, into one float32 accumulator.
//
// A Math says what the codes mean. It names its Tile, its Scalar (the 16-bit type of the low-rank operands and the output),
// CodeRows (where rows of activations come from) and the Arguments that those need, and has
//   kCompiled               whether this architecture multiplies such codes at all
//   kBlocksPerMultiprocessor    that its registers must leave room for
//   kScaleBytes             what it keeps in a stage beside the codes
//   copy_scales(stage)      starts copying the scales of the step whose rows were copied last
//   multiply(fragments, stage)  adds the products of a step
//   finish(y)               the float32 products with all scales applied
#pragma once

#include "gemm_epilogue.h"
#include "gemm_fragments.h"
#include "gemm_rows.h"

namespace halfbyte {

template <class Math>
constexpr int kStageBytes = Math::Tile::kCodeBytes + Math::kScaleBytes;

template <class Math>
constexpr size_t shared_bytes(bool quantized) {
    using Tile = typename Math::Tile;
    const int stages = Tile::kStages * kStageBytes<Math>;
    const int outputs = Staging<Tile>::kBytes + (quantized ? HiddenTile<Tile>::kBytes : 0);
    return stages > outputs ? stages : outputs;
}

DEVICE int steps_over(int bytes) { return (bytes + kStepBytes - 1) / kStepBytes; }

template <class Math>
DEVICE void multiply_tile(const typename Math::Arguments& arguments) {
    using Tile = typename Math::Tile;
    using T = typename Math::Scalar;
    constexpr int kWeightOffset = Tile::kBlockM * kStepBytes;
    SHARED_MEMORY(shared);
    const Place<Tile> place(arguments, Tile::kBlockN);
    const Columns<Tile> columns(arguments, place.block_column);
    const Fragments<Tile> fragments(place);
    WeightRows<Tile> weights(arguments, columns);
    typename Math::CodeRows rows(arguments, place);
    Math math(arguments, place, columns, rows);
    const int code_steps = steps_over(arguments.row_bytes), steps = code_steps + steps_over(arguments.rank_bytes);

    // Beyond the last step everything copied is zero, which nothing reads.
    auto copy = [&](int step, uint8_t* stage) {
        if (step == code_steps) {
            rows.start_ranks();
            weights.start_ranks();
        }
        rows.copy(stage);
        weights.copy(stage + kWeightOffset);
        math.copy_scales(stage + Tile::kCodeBytes);
        ptx::cp_async_commit();
    };
    int reading = 0, writing = (Tile::kStages - 1) * kStageBytes<Math>;
    auto next = [](int& offset) {
        offset += kStageBytes<Math>;
        if (offset == Tile::kStages * kStageBytes<Math>) offset = 0;
    };
    // The stage of this step has arrived for all threads, and all are through with the one that is filled next.
    auto advance = [&](int step) {
        ptx::cp_async_wait<Tile::kStages - 2>();
        ptx::barrier();
        copy(step + Tile::kStages - 1, shared + writing);
        next(writing);
        const uint8_t* stage = shared + reading;
        next(reading);
        return stage;
    };

    UNROLL
    for (int step = 0; step < Tile::kStages - 1; ++step) copy(step, shared + step * kStageBytes<Math>);
    ROLLED
    for (int step = 0; step < code_steps; ++step) math.multiply(fragments, advance(step));

    float y[Tile::kTilesM][Tile::kTilesN][4];
    math.finish(y);
    ROLLED
    for (int step = code_steps; step < steps; ++step) {
        const uint8_t* stage = advance(step);
        UNROLL
        for (int slice = 0; slice < kSlicesPerStep; ++slice)
            for_each_tile(
                fragments, stage, slice, [](int) {},
                [&](int i, int j, const uint32_t (&a)[4], const uint32_t (&b)[2]) { ptx::mma_16bit<T>(y[i][j], a, b); });
    }
    ptx::cp_async_wait<0>();
    ptx::barrier();
    write_tile<T, Math::CodeRows::kHaveNextLayer>(y, shared, place, columns, arguments);
}

// The host asks the architecture before; what it refuses takes no room in the library.
template <class Math>
KERNEL void LAUNCH_BOUNDS(Math::Tile::kThreads, Math::kBlocksPerMultiprocessor) gemm_kernel(const typename Math::Arguments arguments) {
    if constexpr (Math::kCompiled) {
        multiply_tile<Math>(arguments);
    } else {
        ptx::trap();
    }
}

}  // namespace halfbyte
