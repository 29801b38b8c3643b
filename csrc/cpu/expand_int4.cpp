// INT4 storage to float32 rows.
#include <algorithm>

#include "kernels.h"
#include "parallel.h"
#include "target.h"

namespace halfbyte {
namespace {

constexpr int64_t kGroup = 64;
// Below this many elements a second thread costs more than it saves.
constexpr int64_t kElementsPerPart = 1 << 16;

struct Expansion {
    const int8_t* qweight;
    const float* scales;
    float* out;
    int64_t rows, columns;
    int parts;
};

MULTIVERSION
void expand_part(const void* context, int part) {
    const Expansion& work = *static_cast<const Expansion*>(context);
    const int64_t groups = work.columns / kGroup;
    const int64_t first = work.rows * part / work.parts * groups, last = work.rows * (part + 1) / work.parts * groups;
    for (int64_t group = first; group < last; ++group) {
        const float scale = work.scales[group];
        const int8_t* packed = work.qweight + group * (kGroup / 2);
        float* values = work.out + group * kGroup;
        for (int64_t i = 0; i < kGroup / 2; ++i) {
            // The even column sits in the low nibble; shifting it up and back extends its sign.
            values[2 * i] = float(int8_t(uint8_t(packed[i]) << 4) >> 4) * scale;
            values[2 * i + 1] = float(packed[i] >> 4) * scale;
        }
    }
}

}  // namespace

void expand_int4(const int8_t* qweight, const float* scales, float* out, int64_t rows, int64_t columns, int threads) {
    const int parts = int(std::clamp<int64_t>(rows * columns / kElementsPerPart, 1, threads));
    const Expansion work{qweight, scales, out, rows, columns, parts};
    parallel_parts(parts, threads, expand_part, &work);
}

}  // namespace halfbyte
