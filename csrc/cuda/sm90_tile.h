// How the product is cut for warpgroups and clusters, and what a block keeps in shared memory.
#pragma once

#include "gemm_epilogue.h"
#include "ptx_tma.h"

namespace halfbyte {

// Two blocks of a cluster stand side by side and share one operand: each copies half of it into the shared memory of both.
enum class Shares { kWeights, kTokens };

// kBlockN: columns of a block, all of them in each warp's part, for a consumer warpgroup holds 64 whole rows.
template <int kBlockN_, int kStages_, Shares kShares>
struct WarpgroupTile {
    static constexpr int kBlockM = 128, kBlockN = kBlockN_, kStages = kStages_, kWarpN = kBlockN;
    static constexpr int kBlocks = 2;  // of a cluster
    static constexpr bool kSharesWeights = kShares == Shares::kWeights;
    static constexpr int kConsumers = 2, kConsumerWarps = 4 * kConsumers, kThreads = 128 * (1 + kConsumers);
    static constexpr int kValues = kBlockN / 2;  // of the tile, in one thread
    static constexpr int kHalfM = kBlockM / 2, kHalfN = kBlockN / 2;  // rows of the boxes that are copied
    static constexpr int kTokenBytes = kBlockM * kBoxBytes, kWeightBytes = kBlockN * kBoxBytes;
    static constexpr int kStageBytes = kTokenBytes + kWeightBytes;
    // Values and the gates that belong to them are written together, so a part holds columns of both halves of the tile.
    static constexpr int kPartN = kBlockN > 128 ? kBlockN / 2 : kBlockN, kParts = kBlockN / kPartN;
    static_assert(kHalfM * kBoxBytes % 1024 == 0 && kHalfN * kBoxBytes % 1024 == 0, "the swizzle repeats every 1024 bytes");
};

// Where a warp lays out eight rows of a part of the tile.
template <class Tile>
struct PartRows : StagedRows<Tile::kPartN> {
    static constexpr int kWidth = Tile::kPartN, kRows = 8, kBytes = kRows * PartRows::kStride * 4;
};

template <class Tile>
struct WarpgroupMemory {
    static constexpr int kStagingOffset = Tile::kStages * Tile::kStageBytes;
    static constexpr int kBarrierOffset = kStagingOffset + Tile::kConsumerWarps * PartRows<Tile>::kBytes;
    static constexpr int kBytes = kBarrierOffset + 2 * Tile::kStages * int(sizeof(ptx::Mbarrier));
    static constexpr int kMostBytes = 227 * 1024;
    static_assert(kBytes <= kMostBytes, "more than a multiprocessor of sm_90 has");

    uint8_t* shared;

    DEVICE uint8_t* tokens(int stage) const { return shared + stage * Tile::kStageBytes; }

    DEVICE uint8_t* weights(int stage) const { return tokens(stage) + Tile::kTokenBytes; }

    DEVICE PartRows<Tile> staging(int warp) const { return {{shared + kStagingOffset + warp * PartRows<Tile>::kBytes}}; }

    // Phases complete when a stage has been filled, and when all that read it are through.
    DEVICE ptx::Mbarrier* filled(int stage) const { return reinterpret_cast<ptx::Mbarrier*>(shared + kBarrierOffset) + stage; }

    DEVICE ptx::Mbarrier* emptied(int stage) const { return filled(Tile::kStages + stage); }
};

// The stages in turn; the parity changes each time around.
template <class Tile>
struct Ring {
    int stage = 0;
    uint32_t parity = 0;

    DEVICE void next() {
        if (++stage < Tile::kStages) return;
        stage = 0;
        parity ^= 1;
    }
};

// Which tiles a cluster computes, one after another.
template <class Tile>
struct ClusterTiles {
    int rows, columns;  // of the matrix of pairs of tiles

    static constexpr int kRowsOfPair = Tile::kBlockM * (Tile::kSharesWeights ? 2 : 1);
    static constexpr int kColumnsOfPair = Tile::kBlockN * (Tile::kSharesWeights ? 1 : 2);

    DEVICE explicit ClusterTiles(const GemmArguments& arguments)
        : rows((arguments.m + kRowsOfPair - 1) / kRowsOfPair), columns((arguments.n + kColumnsOfPair - 1) / kColumnsOfPair) {}

    DEVICE int count() const { return rows * columns; }

    struct Block {
        int row, column;
    };

    // Eight rows are walked column by column, so that clusters that run together share operands in L2.
    DEVICE Block block(int pair, int rank) const {
        constexpr int kRowsTogether = 8;
        const int band = pair / (kRowsTogether * columns), inside = pair % (kRowsTogether * columns);
        const int first = band * kRowsTogether, height = rows - first < kRowsTogether ? rows - first : kRowsTogether;
        const int row = first + inside % height, column = inside / height;
        return Tile::kSharesWeights ? Block{2 * row + rank, column} : Block{row, 2 * column + rank};
    }
};

}  // namespace halfbyte
