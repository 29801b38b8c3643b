"""The mistakes of a staged pipeline: found as races in every schedule, and by the result in the schedules that show them."""

import numpy as np
import pytest

MISTAKES = ["waits for one group fewer", "no barrier", "refills before the barrier", "reads another stage"]
SCHEDULES = [(seed, run_to_barrier) for seed in range(4) for run_to_barrier in (False, True)]
TILES, THREADS, WORDS = 7, 64, 4


@pytest.fixture
def tiles(checks):
    x = checks.zeros(TILES * THREADS * WORDS, np.uint32)
    x[:] = np.random.default_rng(0).integers(0, 2**32, x.size, np.uint32)
    return x


def sums(tiles):
    return tiles.reshape(TILES, THREADS, WORDS)[:, ::-1, 0].sum(0, dtype=np.uint32)


def result(checks, name, tiles, **options):
    y = checks.zeros(THREADS, np.uint32)
    assert checks.run(name, tiles, y, **options) == ""
    return y


@pytest.mark.parametrize(("seed", "run_to_barrier"), SCHEDULES)
@pytest.mark.parametrize("races", [False, True])
def test_right_pipeline(checks, tiles, seed, run_to_barrier, races):
    y = result(checks, "no mistake", tiles, seed=seed, run_to_barrier=run_to_barrier, races=races)
    assert (y == sums(tiles)).all()


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize(("seed", "run_to_barrier"), SCHEDULES)
def test_mistake_is_a_race_in_every_schedule(checks, tiles, name, seed, run_to_barrier):
    y = checks.zeros(THREADS, np.uint32)
    sentence = checks.run(name, tiles, y, seed=seed, run_to_barrier=run_to_barrier, races=True)
    assert "race: this" in sentence
    assert "which its thread has not waited for" in sentence or "no barrier between them" in sentence


@pytest.mark.parametrize("name", ["waits for one group fewer", "reads another stage"])
@pytest.mark.parametrize(("seed", "run_to_barrier"), SCHEDULES)
def test_poison_shows_in_every_schedule(checks, tiles, name, seed, run_to_barrier):
    assert (result(checks, name, tiles, seed=seed, run_to_barrier=run_to_barrier) != sums(tiles)).any()


@pytest.mark.parametrize("name", ["no barrier", "refills before the barrier"])
def test_running_to_the_barrier_shows_by_result(checks, tiles, name):
    assert any((result(checks, name, tiles, seed=seed, run_to_barrier=True) != sums(tiles)).any() for seed in range(4))


def test_schedule_depends_on_the_seed_alone(checks, tiles):
    first = [result(checks, "no barrier", tiles, seed=seed, run_to_barrier=True) for seed in range(8)]
    again = [result(checks, "no barrier", tiles, seed=seed, run_to_barrier=True) for seed in range(8)]
    assert (np.array(first) == np.array(again)).all()
    assert len({y.tobytes() for y in first}) > 1
