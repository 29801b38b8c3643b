// Reading the fragments of one slice from a stage; one ldmatrix feeds 4-bit, 8-bit and 16-bit matrix instructions alike.
#pragma once

#include "gemm_tile.h"

namespace halfbyte {

template <class Tile>
struct Fragments {
    int a, b;  // where this lane's rows of the first tile lie in a stage

    DEVICE explicit Fragments(const Place<Tile>& place)
        : a(swizzled(place.warp_row + (place.lane & 15), place.lane >> 4)),
          b(Tile::kBlockM * kStepBytes +
            swizzled(place.warp_column + (place.lane & 7) + ((place.lane >> 4) << 3), (place.lane >> 3) & 1)) {}

    // The 16 rows of tile i.
    DEVICE void load_a(uint32_t (&fragment)[4], const uint8_t* stage, int slice, int i) const {
        ptx::ldmatrix_x4(fragment, stage + (a ^ slice_bit(slice)) + i * 16 * kStepBytes);
    }

    // 16 columns: fragment[0..1] are the first eight, fragment[2..3] the others.
    DEVICE void load_b(uint32_t (&fragment)[4], const uint8_t* stage, int slice, int pair) const {
        ptx::ldmatrix_x4(fragment, stage + (b ^ slice_bit(slice)) + pair * 16 * kStepBytes);
    }

    // The second slice is two chunks on, which is one bit of the swizzled position.
    DEVICE static int slice_bit(int slice) { return slice * 2 * 16; }
};

// Calls step(i, j, a, b) for every 16 x 8 tile of the warp in one slice of a stage, column by column: column(j) comes first.
template <class Tile, class Column, class Step>
DEVICE void for_each_tile(const Fragments<Tile>& fragments, const uint8_t* shared, int slice, Column column, Step step) {
    uint32_t a[Tile::kTilesM][4];
    UNROLL
    for (int i = 0; i < Tile::kTilesM; ++i) fragments.load_a(a[i], shared, slice, i);
    UNROLL
    for (int pair = 0; pair < Tile::kTilesN / 2; ++pair) {
        uint32_t both[4];
        fragments.load_b(both, shared, slice, pair);
        UNROLL
        for (int half = 0; half < 2; ++half) {
            const uint32_t b[2] = {both[2 * half], both[2 * half + 1]};
            column(2 * pair + half);
            UNROLL
            for (int i = 0; i < Tile::kTilesM; ++i) step(i, 2 * pair + half, a[i], b);
        }
    }
}

}  // namespace halfbyte
