// How the quantize kernel of sm_90 cuts its work: a function of the sizes alone.
#pragma once

#include <algorithm>
#include <string>

namespace halfbyte {

// A box is what one copy brings: 16 rows of 64 columns of x. A group of rows is quantized at a time by a cluster, whose blocks
// each have some of the boxes that lie side by side; within a block a warp has those of one row of boxes that are column_warps
// apart. Each warp copies its boxes into slots of its own, in turn.
struct ClusterQuantizeTile {
    static constexpr int kBlocks = 8;  // of a cluster
    static constexpr int kBoxRows = 16, kBoxColumns = 64, kSlotBytes = 2048;
    static constexpr int kFewestWarps = 6, kMostWarps = 12, kMostRowTiles = 4;
    static constexpr int kMostBytes = 227 * 1024;
    static constexpr int kPairedWarps = 8, kPairedBytes = 113 * 1024;  // the most with which two blocks share a multiprocessor
    static constexpr int kExchangeBytes = 32;  // barriers of the blocks' exchanges, and a word for what is known of all columns

    int row_tiles, column_warps;   // of a block
    int row_tiles_shift;           // a power of two
    int rows, warps;               // of a group, and of a block
    int block_boxes, warp_boxes;   // side by side in a block, and most of them that one warp has
    int slots;                     // of each warp
    int groups, clusters;
    int ranks;                     // 0, 32 or 64: those there are room for
    // In shared memory, behind the slots.
    int down_offset, reciprocals_offset, sums_offset, peaks_offset, scales_offset, barriers_offset, shared_bytes;

    std::string describe() const {
        return std::to_string(groups) + " groups of " + std::to_string(rows) + " rows in " + std::to_string(clusters) +
               " clusters, " + std::to_string(warps) + " warps of " + std::to_string(warp_boxes) + " boxes and " +
               std::to_string(slots) + " slots, " + std::to_string(shared_bytes) + " bytes of shared memory";
    }
};

struct ClusterQuantizeSizes {
    int rows, columns, rank;
};

inline ClusterQuantizeTile cluster_quantize_tile_of(const ClusterQuantizeSizes& sizes, int clusters, int row_tiles, int warps,
                                                    int most_bytes) {
    using Tile = ClusterQuantizeTile;
    auto over = [](int size, int part) { return (size + part - 1) / part; };
    Tile tile{};
    tile.row_tiles = row_tiles;
    tile.row_tiles_shift = row_tiles == 4 ? 2 : row_tiles == 2 ? 1 : 0;
    tile.block_boxes = over(over(sizes.columns, Tile::kBoxColumns), Tile::kBlocks);
    tile.warp_boxes = over(tile.block_boxes, std::min(tile.block_boxes, warps / row_tiles));
    tile.column_warps = over(tile.block_boxes, tile.warp_boxes);
    tile.rows = row_tiles * Tile::kBoxRows;
    tile.warps = row_tiles * tile.column_warps;
    tile.groups = over(sizes.rows, tile.rows);
    tile.clusters = std::min(clusters, tile.groups);
    tile.ranks = sizes.rank ? over(sizes.rank, 32) * 32 : 0;
    const int columns = tile.block_boxes * Tile::kBoxColumns;
    const int down = columns * tile.ranks * 2, reciprocals = columns * 8;
    const int sums = 2 * tile.column_warps * tile.rows * tile.ranks * 4;
    const int peaks = (tile.column_warps + 2 * Tile::kBlocks) * tile.rows * 4;
    const int scales = tile.rows * 12, slot_bytes = tile.warps * (Tile::kSlotBytes + 8);
    const int room = most_bytes - (down + reciprocals + sums + peaks + scales + Tile::kExchangeBytes);
    tile.slots = std::min(room < 0 ? 0 : room / slot_bytes, 3 * tile.warp_boxes);
    tile.down_offset = tile.warps * tile.slots * Tile::kSlotBytes;
    tile.reciprocals_offset = tile.down_offset + down;
    tile.sums_offset = tile.reciprocals_offset + reciprocals;
    tile.peaks_offset = tile.sums_offset + sums;
    tile.scales_offset = tile.peaks_offset + peaks;
    tile.barriers_offset = tile.scales_offset + scales;
    tile.shared_bytes = tile.barriers_offset + Tile::kExchangeBytes + tile.warps * tile.slots * 8;
    return tile;
}

// Clusters that the device runs at a time, of blocks that fill a multiprocessor and of such as share it.
struct ClustersAtOnce {
    int alone, paired;
};

// Of the tiles whose slots hold a whole group and, if any can, half of the next one too: the one with which a multiprocessor
// issues the fewest instructions, of which a box takes about twice as many as what a warp does once for a group. Then one whose
// blocks share a multiprocessor, as one works while the other waits for its cluster; then the one with most rows.
// None (no slots) where no tile holds a group.
inline ClusterQuantizeTile choose_cluster_quantize_tile(const ClusterQuantizeSizes& sizes, const ClustersAtOnce& clusters) {
    using Tile = ClusterQuantizeTile;
    auto groups_held = [](const Tile& tile) {
        return !tile.slots || tile.slots < tile.warp_boxes ? 0 : 2 * tile.slots < 3 * tile.warp_boxes ? 1 : 2;
    };
    Tile best{};
    int least_work = 0;
    for (bool paired : {true, false}) {
        if (paired && clusters.paired < 2 * clusters.alone) continue;
        const int at_once = paired ? clusters.paired : clusters.alone;
        const int most_bytes = paired ? Tile::kPairedBytes : Tile::kMostBytes;
        for (int row_tiles = Tile::kMostRowTiles; row_tiles > 0; row_tiles /= 2) {
            Tile most{};
            for (int warps = paired ? Tile::kPairedWarps : Tile::kMostWarps; warps >= Tile::kFewestWarps; --warps) {
                const Tile tile = cluster_quantize_tile_of(sizes, at_once, row_tiles, warps, most_bytes);
                if (groups_held(tile) > groups_held(most)) most = tile;
            }
            if (!most.slots) continue;
            const int blocks_together = paired && most.groups > clusters.alone ? 2 : 1;
            const int rounds = (most.groups + most.clusters - 1) / most.clusters * blocks_together;
            const int work = rounds * most.warps * (2 * most.warp_boxes + 1), more = groups_held(most) - groups_held(best);
            if (more > 0 || (more == 0 && work < least_work)) best = most, least_work = work;
        }
    }
    return best;
}

}  // namespace halfbyte
