// Rows of a convolution's activations: row i of the tile is the window of input pixels under output pixel first_row + i.
#pragma once

#include "conv_arguments.h"
#include "gemm_tile.h"

namespace halfbyte {

// A tap is one bit of a word.
constexpr int kMostTaps = 32;

// A place in K = (tap, part of a pixel), walked without divisions.
struct TapCursor {
    const ConvGeometry& geometry;
    int parts_per_tap, part;
    uint32_t tap;  // one bit; none beyond K
    int column;
    int shift;  // in pixels, from the one under the first tap

    DEVICE TapCursor(const ConvGeometry& geometry, int parts_per_tap, int part) : geometry(geometry) { start(parts_per_tap, part); }

    DEVICE void start(int parts, int first) {
        parts_per_tap = parts;
        part = first;
        tap = 1;
        column = shift = 0;
    }

    // Over two taps at most.
    DEVICE void advance(int parts) {
        part += parts;
        UNROLL
        for (int crossing = 0; crossing < 2; ++crossing) {
            const bool crosses = part >= parts_per_tap, ends_row = crosses && column == geometry.kernel_width - 1;
            part -= crosses ? parts_per_tap : 0;
            tap <<= crosses ? 1 : 0;
            column = ends_row ? 0 : column + (crosses ? 1 : 0);
            shift += ends_row ? geometry.row_step : crosses ? geometry.dilation_width : 0;
        }
    }
};

// The input pixels under the kernel at one output pixel.
struct Window {
    int first;        // under the first tap, perhaps outside the image
    uint32_t inside;  // the taps that lie in the image

    DEVICE Window() {}

    // One pixel, under the first tap.
    DEVICE Window(int pixel, bool exists) : first(pixel), inside(exists ? 1 : 0) {}

    DEVICE Window(const ConvArguments& arguments, int output) : inside(0) {
        const ConvGeometry& geometry = arguments.geometry;
        const int line = output / geometry.out_width, image = line / geometry.out_height;
        const int top = line % geometry.out_height * geometry.stride_height - geometry.padding_height;
        const int left = output % geometry.out_width * geometry.stride_width - geometry.padding_width;
        first = (image * geometry.height + top) * geometry.width + left;
        if (output >= arguments.m) return;
        int tap = 0;
        ROLLED
        for (int row = 0; row < geometry.kernel_height; ++row)
            ROLLED
            for (int column = 0; column < geometry.kernel_width; ++column, ++tap) {
                const bool in_height = is_below(top + row * geometry.dilation_height, geometry.height);
                const bool in_width = is_below(left + column * geometry.dilation_width, geometry.width);
                inside |= uint32_t(in_height && in_width) << tap;
            }
    }

    DEVICE static bool is_below(int position, int size) { return unsigned(position) < unsigned(size); }

    DEVICE bool has(const TapCursor& cursor) const { return inside & cursor.tap; }
};

template <class Tile, class T>
struct PixelScales;

template <class Tile>
struct PixelRows {
    using Arguments = ConvArguments;
    template <class T>
    using GroupScales = PixelScales<Tile, T>;
    using ScaleRow = Window;
    static constexpr bool kHaveNextLayer = false;

    // Each tap has the segments of its pixel.
    struct Segment {
        TapCursor cursor;

        DEVICE explicit Segment(const ConvArguments& arguments)
            : cursor(arguments.geometry, arguments.geometry.pixel_bytes / arguments.segment_bytes, 0) {}

        DEVICE void next() { cursor.advance(1); }
    };

    const ConvArguments& arguments;
    const int first_row, chunk, target;
    const uint8_t* codes;
    int pixel_bytes;
    TapCursor cursor;  // of what was copied last
    Window windows[Tile::kPassesA];

    DEVICE PixelRows(const ConvArguments& arguments, const Place<Tile>& place)
        : arguments(arguments),
          first_row(place.first_row()),
          chunk(int(threadIdx.x) % kChunksPerRow),
          target(swizzled(int(threadIdx.x) / kChunksPerRow, chunk)),
          codes(arguments.qx),
          pixel_bytes(arguments.geometry.pixel_bytes),
          cursor(arguments.geometry, pixel_bytes, chunk * 16 - kStepBytes) {
        UNROLL
        for (int pass = 0; pass < Tile::kPassesA; ++pass) windows[pass] = Window(arguments, first_row + row_of(pass));
    }

    DEVICE static int row_of(int pass) { return int(threadIdx.x) / kChunksPerRow + pass * Tile::kRowsPerPass; }

    DEVICE void start_ranks() {
        codes = arguments.low_rank_act;
        pixel_bytes = arguments.rank_bytes;
        cursor.start(pixel_bytes, chunk * 16 - kStepBytes);
        UNROLL
        for (int pass = 0; pass < Tile::kPassesA; ++pass) {
            const int row = first_row + row_of(pass);
            windows[pass] = Window(row, row < arguments.m);
        }
    }

    DEVICE void copy(uint8_t* shared) {
        cursor.advance(kStepBytes);
        const uint8_t* part = ptx::row_at(codes, cursor.shift, pixel_bytes) + cursor.part;
        UNROLL
        for (int pass = 0; pass < Tile::kPassesA; ++pass) {
            const Window& window = windows[pass];
            ptx::cp_async_16(shared + target + pass * Tile::kRowsPerPass * kStepBytes, ptx::row_at(part, window.first, pixel_bytes),
                             window.has(cursor));
        }
    }

    DEVICE ScaleRow scale_row(int row_in_tile) const { return Window(arguments, first_row + row_in_tile); }

    // Where the activation scale of a pixel stands; -1 outside.
    DEVICE int scale_index(const Segment& segment, const Window& window) const {
        const TapCursor& cursor = segment.cursor;
        return window.has(cursor) ? cursor.part * arguments.padded_m + cursor.shift + window.first : -1;
    }
};

}  // namespace halfbyte
