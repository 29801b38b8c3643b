"""The engine on a DiT: exact where it computes, idle where it skips, and nothing left behind."""

import threading

import pytest
import torch

from halfbyte.steps import CacheConfig, DampedLinear, FirstBlockGate, Hold, Interrupted, Linear, StaticSchedule, StepEngine

EVERY_OTHER = CacheConfig(StaticSchedule(interval=2), Linear())
CONFIGS = {
    "hold": CacheConfig(StaticSchedule(interval=2), Hold()),
    "linear": EVERY_OTHER,
    "gate": CacheConfig(FirstBlockGate(0.3), DampedLinear()),
    "output": CacheConfig(StaticSchedule(interval=3), Linear(), site="output"),
}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def attached(model, config):
    engine = StepEngine(model, config)
    engine.attach()
    return engine


def cached(engine, denoise, run_options=None, **options):
    with engine.run(**(run_options or {})) as run:
        latents = denoise(engine.model, **options)
    return latents, run.stats


def block_calls(model):
    """A list that grows by one whenever a block computes."""
    calls = []
    for block in model.transformer_blocks:
        block.attn1.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize(
    ("policy", "site"),
    [(StaticSchedule(interval=1), "stack"), (StaticSchedule(interval=1), "output"), (FirstBlockGate(0.0), "stack")],
    ids=["interval 1, stack", "interval 1, output", "threshold 0"],
)
def test_a_cache_that_always_computes_changes_no_bit(build_dit, denoise, policy, site):
    model = build_dit()
    reference = denoise(model)
    latents, stats = cached(attached(model, CacheConfig(policy, Linear(), site=site)), denoise)
    assert torch.equal(latents, reference)
    assert (stats.computed, stats.reused, stats.forecast) == (8, 0, 0)


def test_no_cache_computes_everything(build_dit, denoise):
    model = build_dit()
    reference = denoise(model)
    latents, stats = cached(attached(model, None), denoise)
    assert torch.equal(latents, reference) and stats.reasons == {"no cache was asked for": 8}


def test_skipped_steps_run_no_block(build_dit, denoise):
    model = build_dit(layers=3)
    calls = block_calls(model)
    _, stats = cached(attached(model, EVERY_OTHER), denoise, {"n_steps": 8})
    assert [record.action for record in stats.timeline] == [
        "computed",
        "reused",
        "computed",
        "forecast",
        "computed",
        "forecast",
        "computed",
        "computed",
    ]
    assert len(calls) == 3 * stats.computed == 15


def test_a_gate_runs_the_first_block_alone_on_skipped_steps(build_dit, denoise):
    model = build_dit(layers=3)
    calls = block_calls(model)
    _, stats = cached(attached(model, CacheConfig(FirstBlockGate(10.0, max_consecutive=2))), denoise, {"n_steps": 8})
    assert [record.action[0] for record in stats.timeline] == list("crrcrrcc")
    assert len(calls) == 3 * stats.computed + stats.reused


@pytest.mark.parametrize("site", ["stack", "output"])
@pytest.mark.parametrize("predictor", [Hold(), Linear()], ids=["hold", "linear"])
def test_reuse_on_a_network_that_returns_a_constant_is_exact(build_dit, denoise, site, predictor):
    class AddOne(torch.nn.Module):
        def forward(self, hidden_states, *args, **kwargs):
            return hidden_states + 1

    model = build_dit()
    for block in model.transformer_blocks:
        block.forward = AddOne().forward
    torch.nn.init.zeros_(model.pos_embed.proj.weight)
    torch.nn.init.zeros_(model.pos_embed.proj.bias)
    model.pos_embed.pos_embed.zero_()
    torch.nn.init.zeros_(model.proj_out_1.weight)
    reference = denoise(model)
    latents, stats = cached(attached(model, CacheConfig(StaticSchedule(interval=4), predictor, site=site)), denoise)
    assert stats.computed < 4 and torch.equal(latents, reference)


def test_more_skipping_is_further_from_the_uncached_run(build_dit, denoise):
    model = build_dit()
    reference = denoise(model, steps=24)
    errors = []
    for interval in (2, 4, 8):
        engine = attached(model, CacheConfig(StaticSchedule(interval=interval)))
        errors.append(float((cached(engine, denoise, steps=24)[0] - reference).norm()))
        engine.detach()
    assert 0 < errors[0] < errors[1] < errors[2]


@each_config
def test_a_run_repeats_bit_for_bit(build_dit, denoise, config):
    engine = attached(build_dit(), config)
    first, _ = cached(engine, denoise)
    assert torch.equal(cached(engine, denoise)[0], first)


@each_config
def test_calls_outside_a_run_compute(build_dit, denoise, config):
    model = build_dit()
    reference = denoise(model)
    attached(model, config)
    assert torch.equal(denoise(model), reference)


@each_config
def test_a_cancelled_run_leaves_nothing_for_the_next_of_another_size(build_dit, denoise, config):
    engine = attached(build_dit(), config)
    wanted, _ = cached(engine, denoise, seed=1)
    other, _ = cached(engine, denoise, size=4)

    def break_off(index):
        if index == 3:
            raise KeyboardInterrupt

    for options in ({"seed": 1}, {"size": 4}):
        with pytest.raises(KeyboardInterrupt):
            cached(engine, denoise, seed=0, on_step=break_off)
        assert torch.equal(cached(engine, denoise, **options)[0], wanted if "seed" in options else other)


def test_an_exception_inside_the_model_drops_the_state_of_a_run_that_goes_on(build_dit, denoise):
    model = build_dit()
    engine = attached(model, EVERY_OTHER)
    block = model.transformer_blocks[1].ff
    with engine.run() as run:
        denoise(model, steps=2)
        assert run.states
        handle = block.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            denoise(model, timesteps=[5])
        handle.remove()
        assert not run.states and run.call is None


def test_a_second_image_in_one_run_starts_afresh(build_dit, denoise):
    engine = attached(build_dit(), EVERY_OTHER)
    wanted, _ = cached(engine, denoise, seed=4)
    with engine.run():
        denoise(engine.model, seed=3)
        assert torch.equal(denoise(engine.model, seed=4), wanted)


def test_a_change_of_size_within_a_run_computes(build_dit, denoise):
    engine = attached(build_dit(), CacheConfig(StaticSchedule(interval=8)))
    with engine.run() as run:
        denoise(engine.model, timesteps=[900, 800])
        denoise(engine.model, timesteps=[700], size=4)
        denoise(engine.model, timesteps=[600], size=4)
    assert [(r.action, r.reason) for r in run.stats.timeline[1:]] == [
        ("reused", "scheduled"),
        ("computed", "shape changed"),
        ("reused", "scheduled"),
    ]


def test_repeated_timesteps_are_steps_of_their_own(build_dit, denoise):
    engine = attached(build_dit(), CacheConfig(StaticSchedule(interval=3)))
    heun = [900, 600, 600, 300, 300, 100, 100]
    _, stats = cached(engine, denoise, {"n_steps": len(heun)}, timesteps=heun)
    assert [record.step for record in stats.timeline] == list(range(7))
    assert [record.action[0] for record in stats.timeline] == list("crrcrrc")


def test_listed_steps_follow_the_number_of_steps(build_dit, denoise):
    engine = attached(build_dit(), CacheConfig(StaticSchedule(compute_steps=(0, 2, 5))))
    for steps in (6, 12):
        _, stats = cached(engine, denoise, {"n_steps": steps}, steps=steps)
        assert stats.computed == steps // 2 and stats.timeline[-1].action == "computed"


@pytest.mark.parametrize("policy", [StaticSchedule(interval=4), FirstBlockGate(10.0)], ids=["interval", "gate"])
def test_steps_past_the_announced_number_compute(build_dit, denoise, policy):
    _, stats = cached(attached(build_dit(), CacheConfig(policy)), denoise, {"n_steps": 3}, steps=6)
    assert [record.action[0] for record in stats.timeline] == list("crcccc")


def test_a_caller_that_writes_into_outputs_does_not_write_into_the_cache(build_dit, denoise):
    engine = attached(build_dit(), CacheConfig(StaticSchedule(interval=4), site="output"))
    batch = {"class_labels": torch.tensor([1]), "return_dict": False}
    latents = torch.ones(1, 2, 8, 8)
    with engine.run(), torch.no_grad():
        computed = engine.model(latents, timestep=torch.tensor([900]), **batch)[0]
        wanted = computed.clone()
        computed.zero_()
        for timestep in (800, 700):
            reused = engine.model(latents, timestep=torch.tensor([timestep]), **batch)[0]
            assert torch.equal(reused, wanted)
            reused.zero_()


@each_config
def test_a_forecast_that_is_not_finite_computes(build_dit, denoise, config):
    model = build_dit()
    engine = attached(model, config)
    with engine.run() as run:
        denoise(model, timesteps=[900, 800, 700])
        for state in run.states.values():
            for history in state.histories.values():
                history[-1][1][0].view(-1)[0] = float("nan")
        before = len(run.stats.timeline)
        latents = denoise(model, timesteps=[600, 500, 400])
    assert torch.isfinite(latents).all()
    assert "non-finite forecast" in {record.reason for record in run.stats.timeline[before:]}


@each_config
def test_two_threads_on_one_model_give_what_they_give_alone(build_dit, denoise, config):
    engine = attached(build_dit(), config)
    alone = [cached(engine, denoise, seed=seed, labels=(seed, 7))[0] for seed in (1, 2)]
    turns, together = threading.Barrier(2), {}

    def worker(seed):
        together[seed] = cached(engine, denoise, seed=seed, labels=(seed, 7), on_step=lambda _: turns.wait(20))[0]

    threads = [threading.Thread(target=worker, args=(seed,)) for seed in (1, 2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert torch.equal(together[1], alone[0]) and torch.equal(together[2], alone[1])


def test_cancel_raises_at_the_next_call_and_only_in_its_own_run(build_dit, denoise):
    engine = attached(build_dit(), None)
    with engine.run() as run:
        with pytest.raises(Interrupted):
            denoise(engine.model, on_step=lambda index: run.cancel() if index == 2 else None)
    assert len(run.stats.timeline) == 2
    assert cached(engine, denoise)[1].computed == 8


@each_config
def test_detach_leaves_the_model_as_it_was_found(build_dit, denoise, config):
    model = build_dit()
    found = {name: dict(vars(module)) for name, module in model.named_modules()}
    reference = denoise(model)
    engine = attached(model, config)
    cached(engine, denoise)
    engine.detach()
    left = {name: dict(vars(module)) for name, module in model.named_modules()}
    assert {name: list(attributes) for name, attributes in left.items()} == {
        name: list(attributes) for name, attributes in found.items()
    }
    assert torch.equal(denoise(model), reference)
    engine.attach()
    engine.detach()
    assert not engine.attached


def test_detach_keeps_a_hook_that_somebody_else_put_on_later(build_dit, denoise):
    from diffusers.hooks import HookRegistry, ModelHook

    class Negate(ModelHook):
        def new_forward(self, module, *args, **kwargs):
            return -self.fn_ref.original_forward(*args, **kwargs)

    model = build_dit()
    reference = denoise(model)
    engine = attached(model, EVERY_OTHER)
    block = model.transformer_blocks[1]
    HookRegistry.check_if_exists_or_initialize(block).register_hook(Negate(), "negate")
    engine.detach()
    assert not torch.equal(denoise(model), reference)
    block._diffusers_hook.remove_hook("negate")
    assert torch.equal(denoise(model), reference)


def test_detach_under_a_wrapper_from_outside_leaves_the_wrapper_and_lets_another_engine_attach(build_dit, denoise):
    model = build_dit()
    reference = denoise(model)
    engine = attached(model, EVERY_OTHER)
    calls, hooked = [], model.forward

    def offloaded(*args, **kwargs):
        calls.append(1)
        return hooked(*args, **kwargs)

    model.forward = offloaded
    engine.detach()
    assert torch.equal(denoise(model), reference) and len(calls) == 8
    wanted, _ = cached(attached(build_dit(), EVERY_OTHER), denoise)
    assert torch.equal(cached(attached(model, EVERY_OTHER), denoise)[0], wanted) and len(calls) == 16


def test_a_second_engine_on_one_model_is_refused(build_dit):
    model = build_dit()
    attached(model, EVERY_OTHER)
    with pytest.raises(ValueError, match="model needs to have no step engine"):
        attached(model, EVERY_OTHER)


def test_another_cache_on_the_model_is_refused(build_dit):
    model = build_dit()
    model.is_cache_enabled = True
    with pytest.raises(ValueError, match="disable_cache"):
        attached(model, EVERY_OTHER)


def test_a_site_asked_for_by_name_must_be_there(build_dit):
    with pytest.raises(ValueError, match="site 'deep_main' is not there: deep_main needs a UNet"):
        StepEngine(build_dit(), CacheConfig(StaticSchedule(interval=2), site="deep_main"))


@each_config
def test_inference_tensors_which_count_no_writes_are_cached_all_the_same(build_dit, denoise, config):
    engine = attached(build_dit(), config)
    wanted, stats = cached(engine, denoise)
    with torch.inference_mode():
        latents, seen = cached(engine, denoise)
    assert torch.equal(latents, wanted) and seen.timeline == stats.timeline
