// INT4 storage to float32 rows.
#include "cpu_kernels.h"

#include "multiversion.h"
#include "parallel.h"

namespace {

constexpr int64_t kGroup = 64;

MULTIVERSION
void expand_rows(const int8_t* qweight, const float* scales, float* out, int64_t first, int64_t last, int64_t columns) {
    const int64_t groups = columns / kGroup;
    for (int64_t row = first; row < last; ++row) {
        for (int64_t group = 0; group < groups; ++group) {
            const float scale = scales[row * groups + group];
            const int8_t* packed = qweight + (row * groups + group) * (kGroup / 2);
            float* values = out + (row * groups + group) * kGroup;
            for (int64_t i = 0; i < kGroup / 2; ++i) {
                // The even column sits in the low nibble; shifting it up and back extends its sign.
                values[2 * i] = float(int8_t(uint8_t(packed[i]) << 4) >> 4) * scale;
                values[2 * i + 1] = float(packed[i] >> 4) * scale;
            }
        }
    }
}

}  // namespace

void expand_int4(const int8_t* qweight, const float* scales, float* out, int64_t rows, int64_t columns, int threads) {
    parallel_rows(rows, columns, threads, [=](int64_t first, int64_t last) {
        expand_rows(qweight, scales, out, first, last, columns);
    });
}
