"""Steps and branches are told from what a pipeline shows; what cannot be told is called ambiguous."""

from types import SimpleNamespace

import pytest
import torch

from halfbyte.steps.arguments import ArgumentReader
from halfbyte.steps.run import Run
from halfbyte.steps.tracker import MAX_BRANCHES, StepTracker

COND, UNCOND = torch.ones(1, 3), torch.zeros(1, 3)


class Denoiser(torch.nn.Module):
    def forward(self, hidden_states, timestep, encoder_hidden_states=None, scale=1.0):
        return hidden_states


READER = ArgumentReader(Denoiser())


def latents(seed, batch=1):
    return torch.randn(batch, 2, 4, generator=torch.Generator().manual_seed(seed))


def observe(tracker, timestep, hidden_states, condition=COND, context=None, **kwargs):
    arguments = READER.read(Denoiser(), (hidden_states,), dict(timestep=timestep, encoder_hidden_states=condition, **kwargs))
    return tracker.observe(arguments, context)


def steps(calls):
    tracker = StepTracker()
    return [(seen.step, seen.branch) for seen in (observe(tracker, *call) for call in calls)]


@pytest.mark.parametrize("timesteps", [(900, 600, 300), (0.0, 0.4, 0.9)], ids=["falling", "rising"])
def test_every_new_timestep_is_a_step(timesteps):
    assert steps((t, latents(i)) for i, t in enumerate(timesteps)) == [(0, "call 0"), (1, "call 0"), (2, "call 0")]


def test_a_repeated_timestep_with_new_latents_is_a_step_of_its_own():
    heun = (900, 600, 600, 300, 300)
    assert [step for step, _ in steps((t, latents(i)) for i, t in enumerate(heun))] == [0, 1, 2, 3, 4]


def test_a_repeated_timestep_with_complete_named_branches_is_a_step_of_its_own():
    calls = [(t, latents(i), COND, name) for i, t in enumerate((900, 600, 600)) for name in ("cond", "uncond")]
    assert steps(calls) == [(0, "cond"), (0, "uncond"), (1, "cond"), (1, "uncond"), (2, "cond"), (2, "uncond")]


def test_unnamed_calls_of_one_step_are_told_apart_by_their_conditioning():
    calls = [(t, x, condition) for t, x in ((900, latents(0)), (600, latents(1))) for condition in (COND, UNCOND)]
    assert steps(calls) == [(0, "call 0"), (0, "call 1"), (1, "call 0"), (1, "call 1")]


def test_guidance_that_starts_late_and_swaps_the_order_mixes_no_branches():
    late = latents(1)
    calls = [(900, latents(0), COND), (600, late, UNCOND), (600, late, COND)]
    assert steps(calls) == [(0, "call 0"), (1, "call 1"), (1, "call 0")]


def test_equal_conditioning_in_new_tensors_is_the_same_branch():
    calls = [(900, latents(0), COND), (600, latents(1), COND.clone()), (300, latents(2), UNCOND.clone())]
    assert [branch for _, branch in steps(calls)] == ["call 0", "call 0", "call 1"]


def test_conditioning_that_was_written_into_is_a_new_branch():
    tracker, condition = StepTracker(), COND.clone()
    first = observe(tracker, 900, latents(0), condition)
    condition.mul_(2)
    assert observe(tracker, 600, latents(1), condition).branch != first.branch


def test_an_argument_that_changes_the_network_makes_another_branch():
    tracker, same = StepTracker(), latents(0)
    assert [observe(tracker, 900, same, scale=scale).branch for scale in (1.0, 0.5, 1.0)] == [
        "call 0",
        "call 1",
        "call 0, again 1",
    ]


def test_a_batch_split_over_calls_is_ambiguous_from_then_on():
    seen = [(900, latents(0)), (900, latents(1)), (600, latents(2))]
    tracker = StepTracker()
    observations = [observe(tracker, *call) for call in seen]
    assert [o.branch for o in observations] == ["call 0", None, None]
    assert observations[-1].reason == "the first timestep came with several latents"


def test_conditioning_that_changes_at_every_step_is_ambiguous_and_bounded():
    tracker = StepTracker()
    observations = [observe(tracker, 900 - i, latents(i), torch.full((1, 3), float(i))) for i in range(MAX_BRANCHES + 2)]
    assert [o.branch is None for o in observations] == [False] * MAX_BRANCHES + [True] * 2
    assert "changes from step to step" in observations[-1].reason


def test_a_step_index_told_by_the_pipeline_is_believed():
    tracker, x = StepTracker(), latents(0)
    contexts = [SimpleNamespace(name=name, step_index=step) for step in (0, 4) for name in ("cond", "uncond")]
    assert [(o.step, o.branch) for o in (observe(tracker, 900, x, COND, c) for c in contexts)] == [
        (0, "cond"),
        (0, "uncond"),
        (4, "cond"),
        (4, "uncond"),
    ]


def test_timesteps_that_turn_back_open_a_new_trajectory():
    tracker = StepTracker()
    seen = [observe(tracker, t, latents(i)) for i, t in enumerate((900, 600, 300, 950, 800))]
    assert [(o.step, o.restarted) for o in seen] == [(0, False), (1, False), (2, False), (0, True), (1, False)]


def test_per_token_timesteps_are_read_by_their_largest():
    tracker = StepTracker()
    seen = [observe(tracker, torch.tensor([[0.0, t, t]]), latents(i)) for i, t in enumerate((900.0, 450.0))]
    assert [(o.step, o.timestep) for o in seen] == [(0, 900.0), (1, 450.0)]


@pytest.mark.parametrize(
    ("scheduler", "timestep", "expected"),
    [
        (SimpleNamespace(timesteps=torch.tensor([900, 600, 300])), 900, 3),
        (SimpleNamespace(timesteps=torch.tensor([900, 600, 300])), 600, 2),
        (SimpleNamespace(timesteps=torch.tensor([900.0, 600.0, 300.0]), begin_index=1), 0.6, 2),
        (SimpleNamespace(timesteps=torch.tensor([900.0, 600.0, 300.0]), begin_index=None), 0.9, 3),
        (SimpleNamespace(), 900, None),
    ],
    ids=["from the start", "from the middle", "other units, begun late", "other units", "no timesteps"],
)
def test_the_number_of_steps_is_read_from_the_scheduler(scheduler, timestep, expected):
    run = Run(1, scheduler)
    context, _ = run.observe(READER.read(Denoiser(), (latents(0), timestep), {}))
    assert context.n_steps == expected


def test_a_forward_without_a_timestep_is_refused():
    with pytest.raises(ValueError, match=r"forward that takes a timestep; Linear takes \['input'\]"):
        ArgumentReader(torch.nn.Linear(2, 2))
