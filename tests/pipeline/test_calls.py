"""One call is one session: threads, cancels, exceptions and sizes leave nothing behind."""

import threading

import pytest
import torch

import halfbyte
from halfbyte.testing.pipelines import output_of, tiny_pipeline

STEPS = 6


def accelerated(name, cache="interval:2"):
    pipe, call = tiny_pipeline(name)
    return halfbyte.accelerate(pipe, "rtn_int4", cache=cache, progress=False), {**call, "num_inference_steps": STEPS}


@pytest.mark.parametrize("name", ["dit", "flux_embeds_only", "sdxl"])
def test_two_threads_on_one_object_make_the_images_of_one(name):
    fast, call = accelerated(name)
    expected = [output_of(fast, call, seed) for seed in range(4)]
    made, errors = {}, []

    def work(seed):
        try:
            made[seed] = output_of(fast, call, seed)
        except Exception as error:
            errors.append(error)

    for _ in range(3):
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert not errors
        assert all(torch.equal(made[seed], expected[seed]) for seed in range(4))


def test_an_exception_in_a_callback_leaves_the_next_image_right_at_any_size():
    fast, call = accelerated("flux_embeds_only")
    small, large = output_of(fast, call), output_of(fast, call, height=32, width=32)

    def fail(pipe, step, timestep, kwargs):
        if step == 2:
            raise KeyboardInterrupt
        return kwargs

    with pytest.raises(KeyboardInterrupt):
        output_of(fast, call, callback_on_step_end=fail)
    assert torch.equal(output_of(fast, call, height=32, width=32), large)
    with pytest.raises(KeyboardInterrupt):
        output_of(fast, call, callback_on_step_end=fail)
    assert torch.equal(output_of(fast, call), small)


def test_interrupt_on_the_object_the_user_holds_ends_the_call():
    fast, call = accelerated("flux_embeds_only")
    expected, seen = output_of(fast, call), []

    def stop(pipe, step, timestep, kwargs):
        seen.append(step)
        if step == 1:
            fast._interrupt = True
        return kwargs

    output_of(fast, call, callback_on_step_end=stop)
    assert seen == [0, 1]
    assert torch.equal(output_of(fast, call), expected)


def test_interrupt_raises_where_the_pipeline_never_looks():
    fast, call = accelerated("dit")
    expected = output_of(fast, call)
    model, calls = fast.transformer, []

    def stop(*_):
        calls.append(1)
        if len(calls) == 2:
            fast._interrupt = True

    handle = model.register_forward_pre_hook(stop)
    with pytest.raises(Exception, match="interrupt|cancel"):
        output_of(fast, call)
    handle.remove()
    assert len(calls) <= 3
    assert torch.equal(output_of(fast, call), expected)


def test_what_a_stock_call_leaves_readable_is_readable():
    fast, call = accelerated("flux_embeds_only")
    output_of(fast, call, guidance_scale=2.5)
    assert fast.guidance_scale == 2.5 and fast.num_timesteps == STEPS


@pytest.mark.parametrize("name", ["dit", "wan", "sdxl"])
def test_another_number_of_steps_runs_and_comes_back(name):
    fast, call = accelerated(name)
    expected = output_of(fast, call)
    assert torch.isfinite(output_of(fast, call, num_inference_steps=9)).all()
    assert torch.equal(output_of(fast, call), expected)


def test_stats_say_what_was_computed():
    fast, call = accelerated("dit")
    output_of(fast, call)
    stats = fast.stats["transformer"]
    assert stats.computed + stats.reused == STEPS
    assert stats.reused >= 2
