"""What a kernel does wrong is named: kernel, PTX line, thread, block and what happened."""

import numpy as np
import pytest

from halfbyte.testing.ptx import PtxFault


@pytest.fixture
def run(run_kernel, on_16_bytes):
    def run_fault(name, threads=32, shared_bytes=512):
        values = on_16_bytes(np.arange(4 * threads, dtype=np.uint32)[:threads])
        out = on_16_bytes(np.zeros(threads, np.uint32))
        run_kernel("faults", name, {"in": values, "out": out}, threads=threads, shared_bytes=shared_bytes)
        return out

    return run_fault


FAULTS = {
    "load_beyond_the_end": r"\(ld\.global.*thread 29 of block \(0, 0, 0\): global load of 4 bytes at 0x\w+: 0 .* the end of in ",
    "store_beyond_the_end": r"\(st\.global.*thread 16 of .*: global store of 4 bytes at 0x\w+: 0 bytes beyond the end of out",
    "misaligned_load": r"\(ld\.global\.v4.*thread 8 of .*: global load of 16 bytes at 0x\w+, not a multiple of 16",
    "shared_load_beyond_the_end": r"thread 28 of .*: shared load of 4 bytes at offset 128, outside of its 128 bytes",
    "barrier_of_half_a_warp": r"divergent barrier: 16 of the 32 threads of its warp are here",
    "product_of_half_a_warp": r"divergent mma: 16 of the 32 threads of its warp are here",
    "shuffle_of_half_a_warp": r"divergent shfl: mask 0xffffffff, but threads 0xffff of its warp are here",
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named(run, name):
    with pytest.raises(PtxFault, match=rf"^{name}, PTX line \d+ .*{FAULTS[name]}"):
        run(name, shared_bytes=128)


def test_a_barrier_that_a_warp_never_reaches(run):
    with pytest.raises(PtxFault, match=r"divergent barrier: 32 threads wait at line \d+, 32 threads have returned"):
        run("barrier_after_one_warp_returned", threads=64)


def test_unwritten_shared_memory_is_poison(run):
    np.testing.assert_array_equal(run("unwritten_shared_memory"), 0xCDCDCDCD)


def test_a_copy_is_poison_until_waited_for(run_kernel, on_16_bytes):
    values, out = on_16_bytes(np.arange(128, dtype=np.uint32)), on_16_bytes(np.zeros(32, np.uint32))
    run_kernel("faults", "waits_for_its_copy", {"in": values, "out": out}, shared_bytes=512)
    np.testing.assert_array_equal(out, values[::4])
    run_kernel("faults", "waits_for_one_copy_too_few", {"in": values, "out": out}, shared_bytes=512)
    np.testing.assert_array_equal(out, 0xEEEEEEEE)


def test_a_copy_that_is_not_valid_reads_nothing_and_writes_zeros(run):
    np.testing.assert_array_equal(run("invalid_copies_read_nothing"), np.where(np.arange(32) < 8, 4 * np.arange(32), 0))


def test_arguments_threads_and_names_are_checked(kernel_text):
    from halfbyte.testing.ptx import Memory, launch, parse

    module = parse(kernel_text("faults", "checked-in"))
    entry = next(iter(module.entries))
    with pytest.raises(ValueError, match=r"^arguments: the 16 bytes of \w+ needed, got 8$"):
        launch(module, entry, (1, 1, 1), 32, 0, bytes(8), Memory([]))
    with pytest.raises(ValueError, match=r"^threads: a multiple of 32 up to 1024 needed, got 33$"):
        launch(module, entry, (1, 1, 1), 33, 0, bytes(16), Memory([]))
    with pytest.raises(ValueError, match=r"^entry: one of .* needed, got no_such$"):
        launch(module, "no_such", (1, 1, 1), 32, 0, bytes(16), Memory([]))
