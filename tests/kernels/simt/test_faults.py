"""Each fault ends the launch with one sentence that names the kernel, the line, the thread and what happened."""

import numpy as np
import pytest

HERE = "faulty_kernels.cu:*"
STUCK = "deadlock, no thread can go on:"
SENTENCES = {
    "load beyond the end": "global load of 16 bytes at 0x* is 16 bytes beyond the end of x",
    "store before the beginning": "global store of 1 bytes at 0x* is 1 bytes before the beginning of y",
    "load misaligned": "global load of 4 bytes at 0x*, byte 2 of x, is not aligned to 4 bytes",
    "load beyond shared": "shared load of 4 bytes at offset 256 is outside the block's 256 bytes",
    "store shared misaligned": "shared store of 4 bytes at offset 2 is not aligned to 4 bytes",
    "copy beyond the end": "global load of 16 bytes at 0x* is 16 bytes beyond the end of x",
    "divergent ldmatrix": "divergence: this lane came to ldmatrix_x4 "
    f"while others of its warp wait in ldmatrix_x4 at {HERE}",
    "index beyond a register array": "index 4 is outside its array",
    "shift by the width": "a shift of 1 by 32 bits, which is undefined",
    "half a warp shuffles": f"{STUCK} threads 0-15 wait in shuffle at {HERE}; threads 16-63 returned",
    "early return": f"{STUCK} threads 0-39 wait in barrier at {HERE}; threads 40-63 returned",
    "one warp skips the barrier": f"{STUCK} threads 0-31 wait in barrier at {HERE}; threads 32-63 returned",
}
RACES = {
    "store the same byte twice": f"this store of byte * of y meets the store by thread * of this block at {HERE}",
    "store from every block": f"this store of byte 0 of y meets the store by thread 0 of another block at {HERE}",
    "load what another block stored": f"this load of byte * of y meets the store by thread 0 of another block at {HERE}",
    "read-only load of a store": f"this read-only load of byte * of y meets the store by thread * of this block at {HERE}",
    "lanes exchange without warp_sync": f"this * of shared byte * meets the * by thread * at {HERE}, "
    "with no barrier or warp_sync between them",
    "read own copy before waiting": f"this read of shared byte * meets the cp.async by thread * at {HERE}, "
    "which its thread has not waited for",
    "overwrite what another warp reads": f"this * of shared byte 0 meets the * by thread * at {HERE}, "
    "with no barrier between them",
}
REFUSED = {
    "a block of 48 threads": "faulty: a block has 32 to 1024 threads in whole warps, not 48",
    "too much shared memory": "faulty: a block has at most 232448 bytes of shared memory, not 233472",
    "no blocks": "faulty: a grid of 0 x 1 x 1 blocks cannot be started",
}
SCHEDULES = [(seed, run_to_barrier) for seed in range(3) for run_to_barrier in (False, True)]


def matches(sentence: str, pattern: str) -> bool:
    """* stands for one number or word."""
    words, wanted = sentence.split(), pattern.split()
    return len(words) == len(wanted) and all(
        word.startswith(head) and word.endswith(tail) if star else word == head
        for word, (head, star, tail) in zip(words, (w.partition("*") for w in wanted))
    )


def run(checks, name, **options):
    y = checks.zeros(64)
    return checks.run(name, checks.zeros(64), y, **options), y


@pytest.mark.parametrize("name", SENTENCES)
@pytest.mark.parametrize(("seed", "run_to_barrier"), SCHEDULES)
def test_fault_in_every_schedule(checks, name, seed, run_to_barrier):
    sentence, _ = run(checks, name, seed=seed, run_to_barrier=run_to_barrier)
    place, _, what = sentence.partition("): ")
    assert matches(place, "faulty, faulty_kernels.cu:* thread * of block (0, 0, 0"), sentence
    assert matches(what, SENTENCES[name]), sentence


@pytest.mark.parametrize("name", RACES)
@pytest.mark.parametrize(("seed", "run_to_barrier"), SCHEDULES)
def test_race_in_every_schedule(checks, name, seed, run_to_barrier):
    sentence, _ = run(checks, name, seed=seed, run_to_barrier=run_to_barrier, races=True)
    assert matches(sentence.partition("race: ")[2], RACES[name]), sentence
    assert not run(checks, name, seed=seed, run_to_barrier=run_to_barrier)[0]


@pytest.mark.parametrize(("seed", "run_to_barrier"), SCHEDULES)
def test_copy_of_another_thread_needs_a_barrier_after_its_wait(checks, seed, run_to_barrier):
    sentence, _ = run(checks, "read another copy without barrier", seed=seed, run_to_barrier=run_to_barrier, races=True)
    assert sentence.endswith(("which its thread has not waited for", "with no barrier between them")), sentence


@pytest.mark.parametrize("name", REFUSED)
def test_launch_that_no_device_takes(checks, name):
    assert run(checks, name)[0] == REFUSED[name]


@pytest.mark.parametrize(("seed", "run_to_barrier"), SCHEDULES)
def test_warp_sync_orders_a_warp(checks, seed, run_to_barrier):
    sentence, y = run(checks, "lanes exchange", seed=seed, run_to_barrier=run_to_barrier, races=True)
    assert not sentence
    assert (y == np.arange(64) ^ 1).all()


@pytest.mark.parametrize(("seed", "run_to_barrier"), SCHEDULES)
def test_a_block_with_nothing_to_do(checks, seed, run_to_barrier):
    sentence, _ = run(checks, "one block too many", seed=seed, run_to_barrier=run_to_barrier, races=True)
    assert sentence == "faulty: block (1, 0, 0) of 2 x 1 x 1 stores nothing"
    assert not run(checks, "one block too many", seed=seed, run_to_barrier=run_to_barrier)[0]


def test_shared_memory_starts_as_poison(checks):
    assert (run(checks, "read uninitialised shared")[1] == 0xCD).all()


def test_copy_under_way_is_poison(checks):
    assert (run(checks, "read own copy before waiting")[1] == 0xEE).all()


def test_copy_that_is_not_valid_reads_nothing_and_zeroes(checks):
    sentence, y = run(checks, "copy nothing from nowhere", races=True)
    assert not sentence
    assert (y == 0).all()


def test_a_fault_leaves_the_machine_usable(checks):
    for _ in range(3):
        assert run(checks, "early return", races=True)[0]
        assert run(checks, "lanes exchange", races=True)[0] == ""
