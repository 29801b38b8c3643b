"""The state faults of caches that keep their state on the modules: each shown there, and shown absent here.

Left to right: what diffusers' own caches do in one situation, what a step engine does in the same one.
"""

import threading

import pytest
import torch
from diffusers import FirstBlockCacheConfig, PyramidAttentionBroadcastConfig, TaylorSeerCacheConfig

from halfbyte.steps import CacheConfig, DampedLinear, FirstBlockGate, Hold, Linear, StaticSchedule, StepEngine

# thresholds are far above a trained model's: under random weights two images' first blocks have little in common
THEIRS = {
    "first block cache": FirstBlockCacheConfig(threshold=1.5),
    "taylorseer": TaylorSeerCacheConfig(cache_interval=3, disable_cache_before_step=2, max_order=1),
}
OURS = {
    "first block gate": CacheConfig(FirstBlockGate(1.5), Hold()),
    "static, linear": CacheConfig(StaticSchedule(interval=3), Linear()),
    "whole output": CacheConfig(StaticSchedule(interval=3), DampedLinear(), site="output"),
}
theirs = pytest.mark.parametrize("config", THEIRS.values(), ids=THEIRS)
ours = pytest.mark.parametrize("config", OURS.values(), ids=OURS)


class Cancelled(Exception):
    pass


def cancel_after_step(last):
    def callback(pipe, step, timestep, tensors):
        if step == last:
            raise Cancelled
        return tensors

    return callback


@pytest.fixture
def with_engine(build_flux_pipeline, draw_flux):
    """A pipeline with an engine on its transformer, and a function that draws in a run of its own."""

    def build(config):
        pipe = build_flux_pipeline()
        engine = StepEngine(pipe.transformer, config)
        engine.attach()

        def draw(pipe=pipe, **options):
            with engine.run():
                return draw_flux(pipe, **options)

        return pipe, draw

    return build


@theirs
def test_after_a_cancel_their_next_image_differs(build_flux_pipeline, draw_flux, config):
    pipe = build_flux_pipeline()
    pipe.transformer.enable_cache(config)
    wanted = draw_flux(pipe, seed=1)
    assert torch.equal(draw_flux(pipe, seed=1), wanted)
    with pytest.raises(Cancelled):
        draw_flux(pipe, seed=2, callback_on_step_end=cancel_after_step(3))
    assert not torch.equal(draw_flux(pipe, seed=1), wanted)


@ours
def test_after_a_cancel_our_next_image_is_the_same(with_engine, config):
    _, draw = with_engine(config)
    wanted = draw(seed=1)
    with pytest.raises(Cancelled):
        draw(seed=2, callback_on_step_end=cancel_after_step(3))
    assert torch.equal(draw(seed=1), wanted)


def test_after_a_cancel_and_a_resize_their_first_block_cache_raises(build_flux_pipeline, draw_flux):
    pipe = build_flux_pipeline()
    pipe.transformer.enable_cache(THEIRS["first block cache"])
    with pytest.raises(Cancelled):
        draw_flux(pipe, callback_on_step_end=cancel_after_step(3))
    with pytest.raises(RuntimeError, match="must match the size of tensor"):
        draw_flux(pipe, size=96)


@ours
def test_after_a_cancel_and_a_resize_our_image_is_the_same(with_engine, config):
    _, draw = with_engine(config)
    wanted = draw(size=96)
    with pytest.raises(Cancelled):
        draw(callback_on_step_end=cancel_after_step(3))
    assert torch.equal(draw(size=96), wanted)


def in_lock_step(pipes, draw):
    """Draw seed i on pipeline i, all at once, no step before the other's last; a failure stands for the image."""
    turns = threading.Barrier(len(pipes))
    results = {}

    def wait(pipe, step, timestep, tensors):
        turns.wait(20)
        return tensors

    def worker(index):
        try:
            results[index] = draw(pipes[index], seed=index, callback_on_step_end=wait)
        except Exception as error:
            turns.abort()
            results[index] = error

    threads = [threading.Thread(target=worker, args=(index,)) for index in range(len(pipes))]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return [results[index] for index in range(len(pipes))]


def is_image(result, wanted):
    return isinstance(result, torch.Tensor) and torch.equal(result, wanted)


@theirs
def test_two_threads_on_their_cached_model_get_other_images(build_flux_pipeline, draw_flux, config):
    first = build_flux_pipeline()
    pipes = [first, build_flux_pipeline(first.transformer)]
    first.transformer.enable_cache(config)
    alone = [draw_flux(pipe, seed=index) for index, pipe in enumerate(pipes)]
    together = in_lock_step(pipes, draw_flux)
    assert not all(is_image(*pair) for pair in zip(together, alone))


@ours
def test_two_threads_on_our_cached_model_get_their_own_images(with_engine, build_flux_pipeline, config):
    first, draw = with_engine(config)
    pipes = [first, build_flux_pipeline(first.transformer)]
    alone = [draw(pipe, seed=index) for index, pipe in enumerate(pipes)]
    together = in_lock_step(pipes, draw)
    assert all(is_image(*pair) for pair in zip(together, alone))


def branch_distances(pipe, draw):
    """Per step, the distance between what the prompt's call and the negative's call return."""
    outputs = []
    handle = pipe.transformer.register_forward_hook(lambda module, args, output: outputs.append(output[0].clone()))
    draw(pipe)
    handle.remove()
    return [float((cond - uncond).norm()) for cond, uncond in zip(outputs[::2], outputs[1::2])]


def test_with_their_attention_broadcast_guidance_is_lost_where_the_branches_are_called_apart(build_wan_pipeline, draw_wan):
    pipe = build_wan_pipeline()
    assert min(branch_distances(pipe, draw_wan)) > 1e-3
    # every attention of the negative's call is taken from the prompt's call just before it
    pipe.transformer.enable_cache(
        PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2,
            cross_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(-1, 1001),
            cross_attention_timestep_skip_range=(-1, 1001),
            spatial_attention_block_identifiers=("blocks",),
            cross_attention_block_identifiers=("blocks",),
            current_timestep_callback=lambda: 500,
        )
    )
    distances = branch_distances(pipe, draw_wan)
    assert distances[1:] == [0.0] * (len(distances) - 1)


@pytest.mark.parametrize(
    "config", [OURS["static, linear"], OURS["whole output"], OURS["first block gate"]], ids=["static", "output", "gate"]
)
def test_with_our_cache_guidance_stays_where_the_branches_are_called_apart(build_wan_pipeline, draw_wan, config):
    pipe = build_wan_pipeline()
    reference = branch_distances(pipe, draw_wan)
    engine = StepEngine(pipe.transformer, config)
    engine.attach()
    with engine.run() as run:
        distances = branch_distances(pipe, draw_wan)
    assert run.stats.reused + run.stats.forecast >= 4
    assert all(0.5 * wanted < distance < 2 * wanted for distance, wanted in zip(distances, reference))
