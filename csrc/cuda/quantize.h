// Host entry points of the quantize kernels. Pointers are to device memory; each op's reference in engine/ops is its definition.
#pragma once

#include <string>

#include "dtype.h"
#include "group_norm_statistics.h"
#include "quantize_arguments.h"
#include "sm90_quantize_tile.h"

namespace halfbyte {

// All of these raise std::invalid_argument for operands that do not fit, and take the tile from the sizes.
void quantize_act(QuantizeArguments arguments, Dtype dtype, Stream stream);
// On sm_90: 8-bit codes with one scale for each token, no shift, and R a multiple of 8 up to 64.
void sm90_quantize_act(const QuantizeArguments& arguments, Dtype dtype, Stream stream);
void norm_quantize(QuantizeArguments arguments, const NormArguments& norm, Dtype dtype, Stream stream);

// Clusters that the device runs at a time: of blocks that fill a multiprocessor, and of such as share it.
ClusterQuantizeTile choose_sm90_quantize_tile(int rows, int columns, int rank, int clusters_alone, int clusters_paired);

void group_norm_quantize(QuantizeArguments arguments, const GroupNormArguments& norm, Dtype dtype, Stream stream);

}  // namespace halfbyte
