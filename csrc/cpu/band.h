// How a convolution is cut into bands of its output, and a thread's memory for one.
#pragma once

#include "block.h"

namespace halfbyte {
namespace {

// The codes of a band stay in the second-level cache while its patches are gathered.
constexpr int64_t kBandBytes = 128 << 10;
// Bands for each thread, so that none waits long for another.
constexpr int64_t kBandsPerThread = 4;

// A band is either some whole images or some lines of one.
template <class Isa>
struct BandPlan {
    using Code = typename Isa::Code;

    const Convolution& work;
    Layout<Isa> layout;
    int threads;
    int64_t images, lines, bands_of_image, bands;
    int64_t columns;
    int64_t act_bytes, block_rows;

    BandPlan(const Convolution& given, int given_threads) : work(given), layout(given.shape), threads(given_threads) {
        columns = (work.out_size[1] - 1) * work.stride[1] + (work.kernel[1] - 1) * work.dilation[1] + 1;
        const int64_t wanted = threads > 1 ? threads * kBandsPerThread : 1;
        const int64_t line_bytes = columns * work.channels * int64_t(sizeof(Code));
        images = std::clamp<int64_t>(kBandBytes / (line_bytes * lines_read(work.out_size[0])), 1, parts(work.batch, wanted));
        const int64_t fitting = (kBandBytes / line_bytes - lines_read(1)) / work.stride[0] + 1;
        const int64_t largest = parts(work.out_size[0], parts(wanted, work.batch));
        lines = images > 1 ? work.out_size[0] : std::clamp<int64_t>(fitting, 1, largest);
        bands_of_image = parts(work.out_size[0], lines);
        bands = parts(work.batch, images) * bands_of_image;
        act_bytes = parts(layout.steps, kStepsPerChunk) * Isa::kRows * kChunk;
        block_rows = tiles_of_block(act_bytes, parts(images * lines * work.out_size[1], Isa::kRows)) * Isa::kRows;
    }

    // Lines of the input that this many lines of the output read.
    int64_t lines_read(int64_t count) const {
        return (count - 1) * work.stride[0] + (work.kernel[0] - 1) * work.dilation[0] + 1;
    }

    int64_t codes_of_image() const { return lines_read(lines) * columns * work.channels; }

    // A band of whole images finds their scales itself.
    bool whole_images() const { return bands_of_image == 1; }

    // Lines of an image that a band reads at once, at most.
    int64_t lines_held() const { return whole_images() ? work.size[0] : std::min(lines_read(lines), work.size[0]); }

    static int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }
};

// This thread's memory for one band.
template <class Isa>
struct BandScratch {
    typename Isa::Code* codes;
    uint8_t *act, *y, *pixels;
    float *scales, *ascales, *bias, *inverse_smooth, *multipliers;

    explicit BandScratch(const BandPlan<Isa>& plan) {
        const Convolution& work = plan.work;
        const int64_t channels = work.channels, columns = plan.layout.panels * plan.layout.kColumns;
        const int64_t sizes[] = {
            plan.images * plan.codes_of_image() * int64_t(sizeof(*codes)),
            plan.block_rows / Isa::kRows * plan.act_bytes,
            work.channels_last ? 0 : plan.block_rows * work.shape.n * 4,
            work.channels_last ? 0 : plan.lines_held() * work.size[1] * channels * 4,
            plan.images * 4, plan.block_rows * 4, columns * 4, channels * 4, channels * 4};
        int64_t bytes = 0;
        for (const int64_t size : sizes) bytes += round_up(size, kChunk);
        uint8_t* next = thread_scratch(bytes);
        int i = 0;
        const auto take = [&] {
            uint8_t* taken = next;
            next += round_up(sizes[i++], kChunk);
            return taken;
        };
        codes = reinterpret_cast<typename Isa::Code*>(take());
        act = take();
        y = take();
        pixels = take();
        scales = reinterpret_cast<float*>(take());
        ascales = reinterpret_cast<float*>(take());
        bias = reinterpret_cast<float*>(take());
        inverse_smooth = reinterpret_cast<float*>(take());
        multipliers = reinterpret_cast<float*>(take());
    }
};

}  // namespace
}  // namespace halfbyte
