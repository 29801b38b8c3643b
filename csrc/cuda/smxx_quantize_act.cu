#include "quantize_host.h"
#include "quantize_rows.h"

namespace halfbyte {

template <class T, int kRowTiles>
KERNEL void LAUNCH_BOUNDS(32 * most_warps(16 * kRowTiles), blocks_at_once(16 * kRowTiles))
    quantize_act_kernel(const QuantizeArguments arguments) {
    SHARED_MEMORY(shared);
    QuantizeRows<T, kRowTiles, RawRows>(arguments, RawRows(), shared).run();
}

void quantize_act(QuantizeArguments arguments, Dtype dtype, Stream stream) {
    check_quantize(arguments, dtype);
    arguments.tile = choose_quantize_tile(quantize_sizes(arguments, false));
    with_tile(arguments.tile, dtype, [&](auto type, auto row_tiles) {
        using T = typename decltype(type)::Type;
        launch_rows(quantize_act_kernel<T, row_tiles.value>, "quantize_act", arguments.tile, stream, arguments);
    });
}

}  // namespace halfbyte
