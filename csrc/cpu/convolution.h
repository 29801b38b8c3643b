// A whole convolution, band by band of its output: quantize the lines that a band reads, gather the patches of a block of pixels
// as rows of K codes, multiply, round, and put the pixels where the layout of the images wants them.
#pragma once

#include "band.h"
#include "image_codes.h"

namespace halfbyte {
namespace {

inline void invert_or_one(const float* smooth, int64_t channels, float* inverse_smooth) {
    for (int64_t i = 0; i < channels; ++i) inverse_smooth[i] = smooth ? 1 / smooth[i] : 1;
}

// One part of an image that no band holds as a whole.
template <class Isa, typename T>
void peak_part(const void* context, int index) {
    const BandPlan<Isa>& plan = *static_cast<const BandPlan<Isa>*>(context);
    const Convolution& work = plan.work;
    const int64_t image = index / plan.threads, part = index % plan.threads, parts = plan.threads;
    const int64_t channels = work.channels, pixels = work.size[0] * work.size[1];
    float* inverse_smooth = reinterpret_cast<float*>(thread_scratch(channels * 8));
    invert_or_one(work.smooth, channels, inverse_smooth);
    const T* x = static_cast<const T*>(work.x) + image * channels * pixels;
    if (work.channels_last) {
        const int64_t first = pixels * part / parts, count = pixels * (part + 1) / parts - first;
        work.peaks[index] = peak_of_pixels(x + first * channels, count, channels, inverse_smooth, inverse_smooth + channels);
    } else {
        const int64_t first = channels * part / parts, count = channels * (part + 1) / parts - first;
        work.peaks[index] = peak_of_planes(x + first * pixels, pixels, count, inverse_smooth + first);
    }
}

// Codes and scale of one image of the band: those of its lines that `lines` lines of the output from `top` on read.
template <class Isa, typename T>
void quantize_image(
    const BandPlan<Isa>& plan, const BandScratch<Isa>& scratch, int64_t image, int64_t top, typename Isa::Code* codes,
    float* scale) {
    const Convolution& work = plan.work;
    const int64_t channels = work.channels, width = work.size[1], plane = work.size[0] * width;
    const int64_t wanted = top * work.stride[0] - work.padding[0];
    const int64_t end = std::min(wanted + plan.lines_read(plan.lines), work.size[0]);
    const int64_t first = plan.whole_images() ? 0 : std::max<int64_t>(0, wanted);
    const int64_t last = plan.whole_images() ? work.size[0] : std::max(first, end);
    const T* x = static_cast<const T*>(work.x) + image * channels * plane;
    T* const transposed = reinterpret_cast<T*>(scratch.pixels);
    if (!work.channels_last) transpose(x + first * width, plane, channels, (last - first) * width, transposed, channels);
    const T* pixels = work.channels_last ? x + first * width * channels : transposed;
    uint32_t peak = 0;
    if (plan.whole_images()) {
        peak = bits_of(peak_of_pixels(pixels, plane, channels, scratch.inverse_smooth, scratch.multipliers));
    } else {
        for (int part = 0; part < plan.threads; ++part) peak = std::max(peak, bits_of(work.peaks[image * plan.threads + part]));
    }
    *scale = scale_of_peak(float_of(peak));
    for (int64_t i = 0; i < channels; ++i) scratch.multipliers[i] = scratch.inverse_smooth[i] / *scale;
    // Columns that no output reads are left out.
    const int64_t columns = std::min(width, plan.columns - work.padding[1]);
    for (int64_t line = std::max(first, wanted); line < std::min(last, end); ++line) {
        auto* row = codes + ((line - wanted) * plan.columns + work.padding[1]) * channels;
        quantize_pixels<Isa>(pixels + (line - first) * width * channels, columns, channels, scratch.multipliers, row);
    }
}

// One row of K codes: the patch whose first pixel is at `codes`.
template <class Isa>
ALWAYS_INLINE void gather_patch(const BandPlan<Isa>& plan, const typename Isa::Code* codes, uint8_t* row) {
    using Code = typename Isa::Code;
    constexpr int64_t kStride = Isa::kRows * kChunk;
    const Convolution& work = plan.work;
    const int64_t tap_bytes = work.channels * int64_t(sizeof(Code));
    int64_t used = 0;
    for (int64_t line = 0; line < work.kernel[0]; ++line) {
        for (int64_t column = 0; column < work.kernel[1]; ++column) {
            const int64_t pixel = line * work.dilation[0] * plan.columns + column * work.dilation[1];
            const uint8_t* tap = reinterpret_cast<const uint8_t*>(codes + pixel * work.channels);
            if (tap_bytes % kChunk == 0) {
                for (const uint8_t* end = tap + tap_bytes; tap < end; tap += kChunk, row += kStride)
                    __builtin_memcpy(row, tap, kChunk);
                continue;
            }
            for (int64_t byte = 0; byte < tap_bytes;) {
                const int64_t count = std::min(kChunk - used, tap_bytes - byte);
                __builtin_memcpy(row + used, tap + byte, size_t(count));
                byte += count;
                used += count;
                if (used < kChunk) continue;
                used = 0;
                row += kStride;
            }
        }
    }
}

// Rows `first` and following of the band, `lines` lines of the output in each of its images.
template <class Isa>
void gather_block(const BandPlan<Isa>& plan, const BandScratch<Isa>& scratch, int64_t first, int64_t rows, int64_t lines) {
    const Convolution& work = plan.work;
    int64_t column = first % work.out_size[1], line = first / work.out_size[1] % lines, image = first / work.out_size[1] / lines;
    for (int64_t row = 0; row < rows; ++row) {
        const int64_t pixel = line * work.stride[0] * plan.columns + column * work.stride[1];
        scratch.ascales[row] = scratch.scales[image];
        const auto* codes = scratch.codes + image * plan.codes_of_image() + pixel * work.channels;
        gather_patch<Isa>(plan, codes, row_of<Isa>(scratch.act, plan.act_bytes, row));
        if (++column < work.out_size[1]) continue;
        column = 0;
        if (++line < lines) continue;
        line = 0;
        ++image;
    }
}

template <class Isa, typename T>
void band_part(const void* context, int part) {
    const BandPlan<Isa>& plan = *static_cast<const BandPlan<Isa>*>(context);
    const Convolution& work = plan.work;
    const BandScratch<Isa> scratch(plan);
    invert_or_one(work.smooth, work.channels, scratch.inverse_smooth);
    fill_bias(work.bias, work.bias_bf16, work.shape.n, scratch.bias);
    const int64_t image = part / plan.bands_of_image * plan.images, images = std::min(plan.images, work.batch - image);
    const int64_t top = part % plan.bands_of_image * plan.lines, lines = std::min(plan.lines, work.out_size[0] - top);
    static_assert(Isa::kCodeOffset == 0 || sizeof(*scratch.codes) == 1, "padding is written byte by byte");
    std::memset(scratch.codes, Isa::kCodeOffset, size_t(images * plan.codes_of_image()) * sizeof(*scratch.codes));
    for (int64_t i = 0; i < images; ++i)
        quantize_image<Isa, T>(plan, scratch, image + i, top, scratch.codes + i * plan.codes_of_image(), scratch.scales + i);

    const Product<Isa> product{plan.layout, work.shape, work.packed, work.bias ? scratch.bias : nullptr, sizeof(T) == 2};
    const int64_t n = work.shape.n, plane = work.out_size[0] * work.out_size[1], pixels = lines * work.out_size[1];
    T* out = static_cast<T*>(work.out);
    for (int64_t first = 0; first < images * pixels; first += plan.block_rows) {
        const int64_t rows = std::min(plan.block_rows, images * pixels - first);
        gather_block<Isa>(plan, scratch, first, rows, lines);
        const Block block{scratch.act, plan.act_bytes, scratch.ascales, nullptr, 0, rows};
        // The pixels of a band follow each other: more than one image is in it only as a whole.
        const int64_t pixel = image * plane + top * work.out_size[1] + first;
        uint8_t* y = work.channels_last ? reinterpret_cast<uint8_t*>(out + pixel * n) : scratch.y;
        multiply_block<Isa, false>(product, block, 0, plan.layout.panels, y);
        for (int64_t row = 0; !work.channels_last && row < rows;) {
            const int64_t inside = (pixel + row) % plane, count = std::min(rows - row, plane - inside);
            transpose(reinterpret_cast<const T*>(y) + row * n, n, count, n, out + (pixel + row - inside) * n + inside, plane);
            row += count;
        }
    }
}

template <class Isa>
void convolve(const Convolution& work, int threads) {
    if (!work.batch || !work.shape.n || !work.out_size[0] || !work.out_size[1]) return;
    const BandPlan<Isa> plan(work, threads);
    const bool bf16 = work.shape.bf16;
    if (!plan.whole_images())
        parallel_parts(int(work.batch * threads), threads, bf16 ? peak_part<Isa, bfloat16> : peak_part<Isa, float>, &plan);
    parallel_parts(int(plan.bands), threads, bf16 ? band_part<Isa, bfloat16> : band_part<Isa, float>, &plan);
}

}  // namespace
}  // namespace halfbyte
