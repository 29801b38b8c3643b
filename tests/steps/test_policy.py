"""Schedules and gates: which steps compute, and what a cache config turns into."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halfbyte.steps import Action, CacheConfig, DampedLinear, FirstBlockGate, Linear, Quadratic, StaticSchedule, StepContext


def at(step, n_steps=None):
    return StepContext(0, step, n_steps, 500.0, None, "cond", (), float(step))


def computed(policy, n_steps, known=True):
    return [step for step in range(n_steps) if policy.decide(at(step, n_steps if known else None), 0).action is Action.COMPUTE]


def test_an_interval_counts_from_the_first_step_and_adds_the_last():
    assert computed(StaticSchedule(interval=3), 9) == [0, 3, 6, 8]
    assert computed(StaticSchedule(interval=3, keep_ends=False), 9) == [0, 3, 6]
    assert computed(StaticSchedule(interval=3), 9, known=False) == [0, 3, 6]


def test_listed_steps_are_taken_as_they_are_at_their_own_number_of_steps():
    schedule = StaticSchedule(compute_steps=(0, 2, 5, 9))
    assert computed(schedule, 10) == [0, 2, 5, 9]
    assert computed(StaticSchedule(compute_steps=(1, 4), n_steps=8), 8) == [0, 1, 4, 7]
    assert computed(StaticSchedule(compute_steps=(1, 4), n_steps=8, keep_ends=False), 8) == [1, 4]


def test_steps_past_the_end_of_a_list_compute_when_the_number_is_unknown():
    assert computed(StaticSchedule(compute_steps=(0, 2, 4)), 8, known=False) == [0, 2, 4, 5, 6, 7]


@settings(max_examples=200, deadline=None)
@given(st.sets(st.integers(0, 39), min_size=2, max_size=40), st.integers(2, 120))
def test_another_number_of_steps_keeps_order_uniqueness_ends_and_proportion(steps, n_steps):
    schedule = StaticSchedule(compute_steps=tuple(sorted(steps | {0})), n_steps=40)
    found = schedule.steps_for(n_steps)
    assert list(found) == sorted(set(found)) and found[0] == 0 and found[-1] == n_steps - 1
    wanted = min(n_steps, max(1, round(len(schedule.compute_steps) * n_steps / 40)))
    assert wanted <= len(found) <= wanted + 2


def test_stretching_keeps_relative_positions():
    early = StaticSchedule(compute_steps=(0, 1, 2, 3, 19), n_steps=20)
    assert sum(step < 8 for step in early.steps_for(40)) >= 7
    assert StaticSchedule(compute_steps=tuple(range(10))).steps_for(25) == tuple(range(25))


def test_a_gate_asks_the_first_block_between_the_ends_until_the_cap():
    gate = FirstBlockGate(0.1, max_consecutive=2)
    assert gate.decide(at(0, 5), 0).action is Action.COMPUTE
    assert gate.decide(at(4, 5), 0).action is Action.COMPUTE
    assert gate.decide(at(2, 5), 1).action is Action.PROBE
    assert gate.decide(at(2, 5), 2).reason == "cap on consecutive forecasts"
    assert [gate.judge(change).action for change in (0.05, 0.1, float("nan"), float("inf"))] == [Action.FORECAST] + [
        Action.COMPUTE
    ] * 3


@pytest.mark.parametrize(
    "config",
    [
        CacheConfig(StaticSchedule(interval=2)),
        CacheConfig(StaticSchedule(compute_steps=(0, 3, 7), n_steps=9), Linear(), site="output", tabulate=False),
        CacheConfig(FirstBlockGate(0.12, max_consecutive=4), DampedLinear(0.25), site="stack"),
        CacheConfig(StaticSchedule(interval=3), Quadratic(), site="deep_main", depth=2),
    ],
    ids=["interval", "listed", "gate", "deep"],
)
def test_a_config_survives_json(config):
    assert CacheConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: StaticSchedule(), "either interval or compute_steps"),
        (lambda: StaticSchedule(interval=2, compute_steps=(0,)), "either interval or compute_steps"),
        (lambda: StaticSchedule(interval=0), "interval needs a positive integer; 0 came"),
        (lambda: StaticSchedule(compute_steps=(3, 1)), r"rising step indices from 0; \(3, 1\) came"),
        (lambda: StaticSchedule(compute_steps=(0, 4), n_steps=4), "n_steps needs more than the last of compute_steps, 4; 4 came"),
        (lambda: FirstBlockGate(float("nan")), "threshold needs a finite number from 0; nan came"),
        (lambda: FirstBlockGate(0.1, max_consecutive=0), "max_consecutive needs a positive integer; 0 came"),
        (lambda: CacheConfig("interval"), "policy needs one of"),
        (lambda: CacheConfig(StaticSchedule(interval=2), depth=-1), "depth needs an integer from 0; -1 came"),
        (lambda: CacheConfig(FirstBlockGate(0.1), site="output"), "site 'output' skips the first block too"),
        (lambda: CacheConfig(StaticSchedule(interval=2), site="attention"), "site needs one of"),
        (lambda: CacheConfig.from_dict({"policy": {"kind": "magic"}}), "policy.kind needs one of .*; 'magic' came"),
        (
            lambda: CacheConfig.from_dict({"policy": {"kind": "static", "every": 2}}),
            "policy needs fields out of .*; 'every' came",
        ),
        (lambda: CacheConfig.from_dict({"policy": {"kind": "first_block_gate"}}), "policy: .*threshold"),
        (lambda: CacheConfig.from_dict({"predictor": {"kind": "hold"}}), "cache needs a policy; none came"),
        (lambda: CacheConfig.from_dict([1]), "cache needs an object; list came"),
        (
            lambda: CacheConfig.from_dict({"policy": {"kind": "static", "interval": 2}, "order": 2}),
            "cache needs fields out of .*; 'order' came",
        ),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence(build, message):
    with pytest.raises(ValueError, match=message):
        build()
