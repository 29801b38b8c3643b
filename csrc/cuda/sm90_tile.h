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
    // Cycles of a multiprocessor for a stage: shared memory moves 128 bytes in each, once to fill the stage and once for each
    // consumer to read it, whose matrix instructions read all weights and the consumer's own tokens; the tensor cores multiply
    // 4096 pairs of codes in each. Both work at the same time.
    static constexpr double kSharedCycles = (2 * kTokenBytes + (1 + kConsumers) * kWeightBytes) / 128.0;
    static constexpr double kTensorCycles = double(kBlockM) * kBlockN * kBoxBytes / 4096;
    // How much longer than the tensor cores alone.
    static constexpr double kCyclesEach = kSharedCycles > kTensorCycles ? kSharedCycles / kTensorCycles : 1;
    static_assert(kHalfM * kBoxBytes % 1024 == 0 && kHalfN * kBoxBytes % 1024 == 0, "the swizzle repeats every 1024 bytes");
};

// What a warp lays out at a time: eight rows of the tile in 16 bits, or of half of its columns in float32.
constexpr int kStagedRows = 8;

template <class Tile>
constexpr int kStagingBytes = kStagedRows * Tile::kBlockN * 2;

// 16-bit rows as the copy engine takes them, with its swizzle: boxes of 64 columns, side by side.
struct BoxRows {
    static constexpr int kColumns = kBoxBytes / 2, kBytes = kStagedRows * kBoxBytes;
    uint8_t* boxes;

    // Of a box, where a row of `width` columns has boxes enough to cover it: the last ends with the row.
    DEVICE static constexpr int first_column(int index, int width) {
        return kColumns * (index + 1) > width ? width - kColumns : kColumns * index;
    }

    DEVICE uint8_t* box(int index) const { return boxes + index * kBytes; }

    DEVICE uint8_t* at(int row, int column) const { return in_box(column / kColumns, row, column % kColumns); }

    DEVICE uint8_t* in_box(int index, int row, int column) const {
        return box(index) + row * kBoxBytes + (((column / 8) ^ row) << 4) + column % 8 * 2;
    }
};

// Float32 rows, whose chunks are exchanged in pairs so that the rows of a fragment column stand in different banks.
template <class Tile>
struct FloatRows {
    static constexpr int kWidth = Tile::kHalfN;
    uint8_t* rows;

    DEVICE uint8_t* at(int row, int column) const { return rows + 4 * (row * kWidth + (column ^ (row % 4 * 8))); }
};

template <class Tile>
struct WarpgroupMemory {
    static constexpr int kStagingOffset = Tile::kStages * Tile::kStageBytes;
    static constexpr int kBarrierOffset = kStagingOffset + Tile::kConsumerWarps * kStagingBytes<Tile>;
    static constexpr int kBytes = kBarrierOffset + 2 * Tile::kStages * int(sizeof(ptx::Mbarrier));
    static constexpr int kMostBytes = 227 * 1024;
    static_assert(kBytes <= kMostBytes, "more than a multiprocessor of sm_90 has");

    uint8_t* shared;

    DEVICE uint8_t* tokens(int stage) const { return shared + stage * Tile::kStageBytes; }

    DEVICE uint8_t* weights(int stage) const { return tokens(stage) + Tile::kTokenBytes; }

    // A warp's own. Boxes begin at multiples of 1024 bytes.
    DEVICE uint8_t* staging(int warp) const { return shared + kStagingOffset + warp * kStagingBytes<Tile>; }

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
