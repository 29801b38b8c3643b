// A block of rows of activations, tile by tile, times the panels of a weight.
#pragma once

#include "tile.h"

namespace halfbyte {
namespace {

// Activations of a block stay in the second-level cache while every panel of the weight passes by.
constexpr int64_t kBlockBytes = 256 << 10;
constexpr int64_t kTilesOfBlock = 8;

inline int64_t tiles_of_block(int64_t tile_bytes, int64_t tiles) {
    return std::clamp<int64_t>(kBlockBytes / std::max<int64_t>(tile_bytes, 1), 1, std::min(kTilesOfBlock, tiles));
}

template <class Isa>
ALWAYS_INLINE uint8_t* row_of(uint8_t* tiles, int64_t tile_bytes, int64_t row) {
    return tiles + row / Isa::kRows * tile_bytes + row % Isa::kRows * kChunk;
}

// The fewest rows that hold those of the tile.
template <class Isa, bool kPairs>
ALWAYS_INLINE void run_tile(const Tile& tile) {
    if (tile.rows > 2 * Isa::kRows / 3) return product_tile<Isa, kPairs, Isa::kRows>(tile);
    if (tile.rows > Isa::kRows / 3) return product_tile<Isa, kPairs, 2 * Isa::kRows / 3>(tile);
    if (tile.rows > 1) return product_tile<Isa, kPairs, Isa::kRows / 3>(tile);
    product_tile<Isa, kPairs, 1>(tile);
}

template <class Isa>
struct Product {
    const Layout<Isa>& layout;
    const WeightShape& shape;
    const uint8_t* packed;
    // Padded to whole panels, or null.
    const float* bias;
    bool out_bf16;

    int64_t element() const { return out_bf16 ? 2 : 4; }

    // What every tile of this panel has in common.
    Tile tile(int64_t panel) const {
        const int64_t column = panel * layout.kColumns;
        Tile tile;
        tile.weight = packed + panel * layout.panel_bytes;
        tile.steps = layout.steps;
        tile.corrections = reinterpret_cast<const int32_t*>(packed + layout.corrections) + column;
        tile.wscales = reinterpret_cast<const float*>(packed + layout.wscales) + column;
        tile.bias = bias ? bias + column : nullptr;
        tile.proj_up = packed + layout.up + panel * layout.up_bytes;
        tile.low_steps = layout.low_steps;
        tile.out_stride = shape.n * element();
        tile.out_bf16 = out_bf16;
        tile.columns = int(std::min<int64_t>(layout.kColumns, shape.n - column));
        return tile;
    }
};

// Tiles of codes and, where the weight has a branch, of its activations.
struct Block {
    uint8_t* act;
    int64_t act_bytes;
    const float* ascales;
    uint8_t* low_rank_act;
    int64_t low_bytes;
    int64_t rows;
};

// out [rows, N]: panels `panel` up to `last` of it.
template <class Isa, bool kPairs>
void multiply_block(const Product<Isa>& product, const Block& block, int64_t panel, int64_t last, uint8_t* out) {
    for (; panel < last; ++panel) {
        Tile tile = product.tile(panel);
        for (int64_t row = 0; row < block.rows; row += Isa::kRows) {
            tile.act = row_of<Isa>(block.act, block.act_bytes, row);
            tile.ascales = block.ascales + row;
            tile.low_rank_act = row_of<Isa>(block.low_rank_act, block.low_bytes, row);
            tile.out = out + row * tile.out_stride + panel * product.layout.kColumns * product.element();
            tile.rows = int(std::min<int64_t>(Isa::kRows, block.rows - row));
            run_tile<Isa, kPairs>(tile);
        }
    }
}

inline void fill_bias(const void* from, bool bf16, int64_t n, float* bias) {
    for (int64_t i = 0; from && i < n; ++i)
        bias[i] = bf16 ? to_float(static_cast<const bfloat16*>(from)[i]) : static_cast<const float*>(from)[i];
}

}  // namespace
}  // namespace halfbyte
