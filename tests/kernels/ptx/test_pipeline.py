"""A warp-specialised kernel in clusters, as nvcc compiled it: right under any schedule, and each fault named."""

import struct

import numpy as np
import pytest

from halfbyte.testing.ptx import Memory, PtxFault, launch, parse
from halfbyte.testing.ptx.tensor_map import TensorMap

ROWS, COLUMNS, BOX_BYTES = 64, 32, 128
STAGE_BYTES = (ROWS + COLUMNS) * BOX_BYTES
SHARED_BYTES = 2 * STAGE_BYTES + ROWS * COLUMNS * 4 + 32
K, BLOCKS = 600, 4
SEEDS = [None, 0, 1, 2, 3]


@pytest.fixture(params=["checked-in", "90a"])
def arch(request):
    return request.param


def rows_of(array, columns, rows, span):
    return TensorMap(array.ctypes.data, array.itemsize, array.shape[::-1], array.strides[::-1], (columns, rows), span)


@pytest.fixture
def run(kernel_text, arch, on_16_bytes):
    module = parse(kernel_text("sm90_pipeline", arch))

    def run_entry(name, seed=None):
        rng = np.random.default_rng(0)
        tokens, weights = (
            on_16_bytes(rng.integers(-128, 128, (rows, K // 16 * 16)).astype(np.int8)) for rows in (BLOCKS * ROWS - 9, COLUMNS)
        )
        sums = on_16_bytes(np.zeros((len(tokens), COLUMNS), np.int32))
        maps = (
            rows_of(tokens, BOX_BYTES, ROWS, 128),
            rows_of(weights, BOX_BYTES, COLUMNS // 2, 128),
            rows_of(sums, COLUMNS, ROWS, 16),
        )
        arguments = b"".join(map.encode() for map in maps) + struct.pack("i", -(-K // BOX_BYTES))
        entry = next(entry for entry in module.entries if f"{len(name)}{name}E" in entry)
        arguments = arguments.ljust(module.entries[entry].parameter_offsets()[1], b"\0")
        arrays = {"tokens": tokens, "weights": weights, "sums": sums}
        memory = Memory([(key, array.ctypes.data, array.nbytes) for key, array in arrays.items()])
        launch(module, entry, (BLOCKS, 1, 1), 256, SHARED_BYTES, arguments, memory, name, seed)
        np.testing.assert_array_equal(sums, tokens.astype(np.int64) @ weights.astype(np.int64).T)

    return run_entry


@pytest.mark.parametrize("seed", SEEDS)
def test_the_whole_kernel(run, seed):
    run("whole", seed)


FAULTS = {
    "released_early": r"\(cp\.async\.bulk\.tensor.*a bulk copy writes shared memory that wgmma or a bulk copy reads: nobody",
    "not_waited_for": r"\(wgmma\.mma_async.*wgmma of shared memory that a bulk copy has yet to fill: its mbarrier phase",
    "fewer_bytes": r"\(wgmma\.mma_async.*wgmma of shared memory that a bulk copy has yet to fill: its mbarrier phase",
    "no_fence": r"\(wgmma\.mma_async.*wgmma\.mma_async without a wgmma\.fence before it",
    "no_proxy_fence": r"\(cp\.async\.bulk\.tensor.*a bulk copy of shared memory that thread \d+ wrote without a fence\.proxy",
    "no_last_barrier": r"\((mbarrier\.arrive|cp\.async).*block \d of the cluster, all of whose threads have returned",
    "no_store_wait": r"\(cp\.async\.bulk\.tensor.*all threads returned during this bulk copy: nobody waited for its group",
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_under_some_schedule(run, name):
    with pytest.raises(PtxFault, match=rf"^{name}, PTX line \d+ .*{FAULTS[name]}"):
        for seed in SEEDS:
            run(name, seed)
