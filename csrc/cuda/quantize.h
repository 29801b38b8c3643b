// Host entry points of the quantize kernels. Pointers are to device memory; each op's reference in engine/ops is its definition.
#pragma once

#include <string>

#include "dtype.h"
#include "group_norm_statistics.h"
#include "quantize_arguments.h"

namespace halfbyte {

// All of these raise std::invalid_argument for operands that do not fit, and take the tile from the sizes.
void quantize_act(QuantizeArguments arguments, Dtype dtype, Stream stream);
void norm_quantize(QuantizeArguments arguments, const NormArguments& norm, Dtype dtype, Stream stream);

void group_norm_quantize(QuantizeArguments arguments, const GroupNormArguments& norm, Dtype dtype, Stream stream);

}  // namespace halfbyte
