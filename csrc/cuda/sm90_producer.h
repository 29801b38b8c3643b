// The thread that keeps the stages filled: codes, and then the 16-bit low-rank operands, as boxes of 128 bytes of every row.
#pragma once

#include "sm90_arguments.h"
#include "sm90_tile.h"

namespace halfbyte {

DEVICE int boxes_over(int bytes) { return (bytes + kBoxBytes - 1) / kBoxBytes; }

template <class Tile>
struct Producer {
    const WarpgroupArguments& arguments;
    const WarpgroupMemory<Tile> memory;
    const int rank;
    Ring<Tile> ring;

    DEVICE Producer(const WarpgroupArguments& arguments, const WarpgroupMemory<Tile>& memory, int rank)
        : arguments(arguments), memory(memory), rank(rank) {}

    DEVICE void run() {
        const GemmArguments& gemm = arguments.gemm;
        const ClusterTiles<Tile> tiles(gemm);
        const int stride = int(gridDim.x) / Tile::kBlocks;
        ROLLED
        for (int pair = int(blockIdx.x) / Tile::kBlocks; pair < tiles.count(); pair += stride) {
            const auto block = tiles.block(pair, rank);
            const Columns<Tile> columns(gemm, block.column);
            const Rows rows = {block.row * Tile::kBlockM, {columns.unbounded(0), columns.unbounded(Tile::kHalfN)}};
            copy_rows(&arguments.qx, &arguments.qweight, rows, gemm.row_bytes);
            copy_rows(&arguments.low_rank_act, &arguments.proj_up, rows, gemm.rank_bytes);
        }
    }

private:
    // Where the tile's tokens begin, and both halves of its weights: those of values and gates stand apart.
    struct Rows {
        int token;
        int weights[2];
    };

    DEVICE void copy_rows(const TensorMap* tokens, const TensorMap* weights, const Rows& rows, int row_bytes) {
        ROLLED
        for (int byte = 0; byte < row_bytes; byte += kBoxBytes, ring.next()) {
            const int stage = ring.stage;
            ptx::mbarrier_wait(memory.emptied(stage), ring.parity ^ 1);
            ptx::mbarrier_arrive_expecting(memory.filled(stage), Tile::kStageBytes);
            UNROLL
            for (int half = 0; half < 2; ++half) {
                uint8_t* token_box = memory.tokens(stage) + half * Tile::kHalfM * kBoxBytes;
                uint8_t* weight_box = memory.weights(stage) + half * Tile::kHalfN * kBoxBytes;
                copy<!Tile::kSharesWeights>(half, token_box, tokens, byte, rows.token + half * Tile::kHalfM, stage);
                copy<Tile::kSharesWeights>(half, weight_box, weights, byte, rows.weights[half], stage);
            }
        }
    }

    template <bool kShared>
    DEVICE void copy(int half, uint8_t* box, const TensorMap* map, int byte, int row, int stage) {
        constexpr uint16_t kBoth = 3;
        if constexpr (!kShared) {
            ptx::copy_box(box, map, byte, row, memory.filled(stage));
        } else if (half == rank) {
            ptx::copy_box_to(kBoth, box, map, byte, row, memory.filled(stage));
        }
    }
};

}  // namespace halfbyte
