// Host entry points of the feature caches' arithmetic.
#pragma once

#include <vector>

#include "floats.h"
#include "launch.h"

namespace halfbyte {

constexpr int kMaxHistory = 8;

// Floats of the workspace that rel_l1 needs for `count` elements.
int rel_l1_workspace(int64_t count);

// All throw std::invalid_argument for operands the kernels cannot take. count: elements of each tensor; out has the dtype of
// the first.
void rel_l1(Floats value, Floats base, float* workspace, float* out, int64_t count, Stream stream);
void delta_apply(Floats hidden_states, Floats delta, void* out, int64_t count, Stream stream);
void affine_correct(Floats hidden_states, Floats scale, Floats shift, void* out, int64_t count, int channels, Stream stream);
void forecast(const std::vector<const void*>& history, Dtype dtype, const float* coefficients, void* out, int64_t count,
              Stream stream);

}  // namespace halfbyte
