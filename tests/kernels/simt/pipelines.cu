// A small staged pipeline, and each of the mistakes that such a pipeline is prone to.
#include "checks.h"
#include "cuda/ptx.h"

namespace halfbyte {
constexpr int kThreads = 64, kStages = 3, kTiles = 7, kTileBytes = 16 * kThreads;

enum class Mistake { kNone, kWaitsForOneGroupFewer, kNoBarrier, kRefillsBeforeTheBarrier, kReadsAnotherStage };

// y[thread] = the sum over the tiles of x of the first word that the thread at the block's other end copied.
template <Mistake kMistake>
KERNEL void LAUNCH_BOUNDS(kThreads, 1) sum_tiles(const CheckArguments arguments) {
    SHARED_MEMORY(shared);
    int thread = threadIdx.x;
    auto copy_tile = [&](int tile) {
        uint8_t* stage = shared + tile % kStages * kTileBytes;
        ptx::cp_async_16(stage + 16 * thread, arguments.x + (tile < kTiles ? tile : 0) * kTileBytes + 16 * thread, tile < kTiles);
        ptx::cp_async_commit();
    };
    uint32_t sum = 0;
    for (int tile = 0; tile < kStages - 1; ++tile) copy_tile(tile);
    for (int tile = 0; tile < kTiles; ++tile) {
        constexpr int kUnderWay = kMistake == Mistake::kWaitsForOneGroupFewer ? kStages - 1 : kStages - 2;
        ptx::cp_async_wait<kUnderWay>();
        if (kMistake == Mistake::kRefillsBeforeTheBarrier) copy_tile(tile + kStages - 1);
        if (kMistake != Mistake::kNoBarrier) ptx::barrier();
        if (kMistake != Mistake::kRefillsBeforeTheBarrier) copy_tile(tile + kStages - 1);
        int read = kMistake == Mistake::kReadsAnotherStage ? tile + 1 : tile;
        sum += ptx::load_shared<uint32_t>(shared + read % kStages * kTileBytes + 16 * (kThreads - 1 - thread));
    }
    ptx::store(reinterpret_cast<uint32_t*>(arguments.y) + thread, sum);
}

template <Mistake kMistake>
void start(const CheckArguments& arguments) {
    launch(sum_tiles<kMistake>, "sum_tiles", {}, kThreads, kStages * kTileBytes, 0, arguments);
}

const NamedCheck kPipelines[] = {
    {"no mistake", start<Mistake::kNone>},
    {"waits for one group fewer", start<Mistake::kWaitsForOneGroupFewer>},
    {"no barrier", start<Mistake::kNoBarrier>},
    {"refills before the barrier", start<Mistake::kRefillsBeforeTheBarrier>},
    {"reads another stage", start<Mistake::kReadsAnotherStage>},
    {},
};

}  // namespace halfbyte
