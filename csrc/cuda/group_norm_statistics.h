// Mean and variance of channels-last pixels per batch item and group of channels, as the quantize kernel reads them.
#pragma once

#include "dtype.h"
#include "launch.h"

namespace halfbyte {

// Floats in the workspace of one group norm, one after the other.
struct GroupNormWorkspace {
    float* mean;           // [batch, channels], alike within a group
    float* factor;         // [batch, channels], 1 / standard deviation
    float* block_mean;     // [batch, blocks, channels]
    float* block_squares;  // [batch, blocks, channels], summed, of the differences from block_mean
};

struct GroupNormStatistics {
    const void* x;  // [batch, pixels, channels], 16-bit
    GroupNormWorkspace workspace;
    int batch, pixels, channels, groups;
    int pixels_per_block, blocks;
    float eps;
};

// Cuts the pixels into blocks, and the workspace with them.
GroupNormStatistics plan_group_norm(const void* x, float* workspace, int batch, int pixels, int channels, int groups, float eps);
size_t group_norm_workspace_floats(int batch, int pixels, int channels);

// Two launches: the moments of each block of pixels, then their sum. Each order is fixed.
void group_norm_statistics(const GroupNormStatistics& arguments, Dtype dtype, Stream stream);

}  // namespace halfbyte
