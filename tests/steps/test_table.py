"""Tabulated layers hand out exactly what they would compute, and notice changed weights."""

import pytest
import torch

from halfbyte.steps import CacheConfig, StaticSchedule, StepEngine
from halfbyte.steps.run import Run
from halfbyte.steps.table import Table

ALWAYS = CacheConfig(StaticSchedule(interval=1))


@pytest.fixture
def engine(build_dit):
    engine = StepEngine(build_dit(), ALWAYS)
    engine.attach()
    return engine


def cached(engine, denoise, **options):
    with engine.run() as run:
        return denoise(engine.model, **options), run.stats


def linear_calls(model):
    calls = []
    for block in model.transformer_blocks:
        stock = block.norm1.linear.forward

        def counted(*args, stock=stock):
            calls.append(1)
            return stock(*args)

        block.norm1.linear.forward = counted
    return calls


def test_a_second_run_of_the_same_labels_computes_each_layer_once_and_matches_bit_for_bit(build_dit, denoise):
    model = build_dit(layers=3)
    reference = denoise(model)
    calls = linear_calls(model)
    engine = StepEngine(model, ALWAYS)
    engine.attach()
    first, _ = cached(engine, denoise)
    assert len(calls) == 3 * 8
    second, stats = cached(engine, denoise)
    assert len(calls) == 3 * 8 + 3
    assert stats.tabulated >= 2 * 3 * 7
    assert torch.equal(first, reference) and torch.equal(second, reference)


@pytest.mark.parametrize(
    "options", [{"labels": (4, 5)}, {"labels": (5, 3)}, {"labels": (3,)}, {"steps": 5}], ids=["label", "order", "batch", "steps"]
)
def test_other_labels_steps_or_batches_are_not_taken_from_the_table(build_dit, denoise, engine, options):
    cached(engine, denoise)
    assert torch.equal(cached(engine, denoise, **options)[0], denoise(build_dit(), **options))


@torch.no_grad()
def write_behind_the_counter(model):
    model.transformer_blocks[1].norm1.linear.weight.data.view(-1).data[:50] += 1


@torch.no_grad()
def write_in_place(model):
    model.transformer_blocks[1].norm1.linear.weight.add_(0.1)


def replace_parameter(model):
    linear = model.transformer_blocks[0].norm1.linear
    linear.weight = torch.nn.Parameter(linear.weight.detach() * 2)


def change_forward(model):
    # what an adapter on a part of the layer does
    linear = model.transformer_blocks[0].norm1.emb.timestep_embedder.linear_1
    stock = linear.forward
    linear.forward = lambda x: stock(x) + 1


@pytest.mark.parametrize(
    "change", [write_behind_the_counter, write_in_place, replace_parameter, change_forward], ids=lambda f: f.__name__
)
def test_weights_changed_between_runs_are_noticed(build_dit, denoise, engine, change):
    cached(engine, denoise)
    other = build_dit()
    change(engine.model)
    change(other)
    expected = denoise(other)
    assert torch.equal(cached(engine, denoise)[0], expected)
    assert torch.equal(cached(engine, denoise)[0], expected)


def test_entries_from_before_a_change_are_not_mixed_in_by_a_run_that_shares_keys_with_both(build_dit, denoise, engine):
    other = build_dit()
    cached(engine, denoise, timesteps=[900, 500])
    change_forward(engine.model)
    change_forward(other)
    cached(engine, denoise, timesteps=[800, 400])
    mixed = [800, 500, 400]
    assert torch.equal(cached(engine, denoise, timesteps=mixed)[0], denoise(other, timesteps=mixed))


def test_weights_written_in_the_middle_of_a_run_are_noticed(build_dit, denoise, engine):
    other = build_dit()
    cached(engine, denoise)
    write_at = {3: write_in_place}
    with engine.run():
        latents = denoise(engine.model, on_step=lambda i: write_at.get(i, lambda _: None)(engine.model))
    assert torch.equal(latents, denoise(other, on_step=lambda i: write_at.get(i, lambda _: None)(other)))


def test_training_and_gradients_compute(engine):
    with engine.run() as run:
        batch = {"timestep": torch.tensor([5]), "class_labels": torch.tensor([1])}
        for _ in range(3):
            engine.model(torch.ones(1, 2, 8, 8), **batch)
    assert run.stats.tabulated == 0


def test_the_table_stays_within_its_bytes_and_keeps_the_run_in_progress():
    table, first = Table(max_bytes=4 * 10 * 4), Run(1)
    for key in range(6):
        table.value(first, "layer", key, lambda: torch.zeros(10))
    assert (len(table), table.bytes) == (4, 160)
    assert all(torch.equal(table.value(first, "layer", key, lambda: torch.ones(10)), torch.zeros(10)) for key in range(4))
    second = Run(1)
    for key in range(10, 13):
        table.value(second, "layer", key, lambda: torch.ones(10))
    assert len(table) == 4 and table.bytes == 160


def test_an_output_that_was_written_into_is_computed_again():
    table, run = Table(), Run(1)
    table.value(run, "layer", 0, lambda: torch.zeros(3)).add_(1)
    assert torch.equal(table.value(run, "layer", 0, lambda: torch.zeros(3)), torch.zeros(3))


def test_unet_time_layers_are_tabulated_for_every_prompt(build_unet, denoise_unet):
    model = build_unet(levels=2)
    reference = denoise_unet(model)
    engine = StepEngine(model, ALWAYS)
    engine.attach()
    cached(engine, denoise_unet)
    latents, stats = cached(engine, denoise_unet)
    layers = 1 + sum(name.endswith("time_emb_proj") for name, _ in model.named_modules())
    assert stats.tabulated == 7 * layers and torch.equal(latents, reference)
