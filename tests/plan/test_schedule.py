"""The chosen schedule is the best of all schedules, by the forecast errors an independent simulation finds."""

import itertools

import pytest
import torch

from halfbyte.plan import Trajectory, choose_compute_steps

STEPS = 8


def trajectory(seed: int) -> Trajectory:
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(STEPS, 5, generator=generator).cumsum(0)
    return Trajectory(outputs, torch.rand(STEPS, generator=generator).double() + 0.1)


def simulated_cost(path: tuple[int, ...], recorded: Trajectory, damping: float) -> float:
    """Forecast every skipped step from the last two computed ones; errors of one gap add before they are squared."""
    outputs, weight = recorded.outputs.double(), recorded.influence
    total = 0.0
    for index, computed in enumerate(path[:-1]):
        error = torch.zeros(outputs.shape[1], dtype=torch.float64)
        for step in range(computed + 1, path[index + 1]):
            forecast = outputs[computed]
            if index:
                before = path[index - 1]
                forecast = forecast + damping * (step - computed) / (computed - before) * (outputs[computed] - outputs[before])
            error += weight[step] * (outputs[step] - forecast)
        total += float(error.square().mean())
    reach = (weight[:, None] * outputs).sum(0).square().mean()
    return total / float(reach)


@pytest.mark.parametrize("damping", [0.0, 0.5, 1.0], ids=["hold", "damped", "linear"])
@pytest.mark.parametrize("count", [2, 3, 5, STEPS])
@pytest.mark.parametrize("seed", range(3))
def test_chosen_steps_are_the_best_of_all(seed, count, damping):
    recorded = trajectory(seed)
    best = min(
        simulated_cost((0, *middle, STEPS - 1), recorded, damping)
        for middle in itertools.combinations(range(1, STEPS - 1), count - 2)
    )
    schedule = choose_compute_steps(recorded, count, damping)
    assert len(schedule.compute_steps) == count
    assert schedule.compute_steps[0] == 0 and schedule.compute_steps[-1] == STEPS - 1
    assert schedule.cost == pytest.approx(simulated_cost(schedule.compute_steps, recorded, damping), abs=1e-12)
    assert schedule.cost == pytest.approx(best, abs=1e-12)


def test_no_gap_exceeds_the_cap():
    steps = choose_compute_steps(trajectory(0), 4, 1.0, max_gap=3).compute_steps
    assert max(b - a for a, b in itertools.pairwise(steps)) <= 3


def test_a_line_is_forecast_without_error():
    outputs = torch.arange(STEPS, dtype=torch.float32)[:, None] * torch.tensor([[1.0, -2.0]])
    schedule = choose_compute_steps(Trajectory(outputs, torch.ones(STEPS).double()), 3, 1.0)
    assert schedule.compute_steps == (0, 1, STEPS - 1)
    assert schedule.cost == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("count", [1, STEPS + 1])
def test_count_out_of_range_is_refused(count):
    with pytest.raises(ValueError, match=f"count needs 2 to {STEPS}"):
        choose_compute_steps(trajectory(0), count)


def test_a_cap_that_cannot_be_kept_is_refused():
    with pytest.raises(ValueError, match="max_gap"):
        choose_compute_steps(trajectory(0), 3, 1.0, max_gap=2)
