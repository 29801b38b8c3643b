import time

import pytest

from halfbyte.measure import interleave, load_guard, paired_ratio, timing


def test_order_turns_around_and_warm_ups_are_not_counted():
    calls = []
    samples = interleave({name: (lambda name=name: calls.append(name)) for name in "abc"}, rounds=3, warmup=1)
    assert "".join(calls) == "abc" + "abc" + "cba" + "abc"
    assert {name: len(times) for name, times in samples.items()} == {"a": 3, "b": 3, "c": 3}


def test_ratio_of_two_waits():
    samples = interleave({"long": lambda: time.sleep(0.02), "short": lambda: time.sleep(0.005)}, rounds=7, warmup=0)
    ratio = paired_ratio(samples["long"], samples["short"])
    assert 1.5 < ratio.estimate < 4.5 and ratio.excludes(1)


@pytest.mark.parametrize(("busy_cores", "warns"), [(0.0, False), (0.1, False), (1.9, True)])
def test_load_guard_counts_only_others(monkeypatch, busy_cores, warns):
    clock = iter([0.0, 1.0])
    own = iter([10.0, 10.4])
    ticks = iter([100.0, 100.0 + 0.4 + busy_cores])
    monkeypatch.setattr(timing.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(timing.time, "process_time", lambda: next(own))
    monkeypatch.setattr(timing.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(timing, "_busy_seconds", lambda: next(ticks))
    warning = load_guard()
    assert (warning is not None) == warns
    assert not warns or "1.9 of 2 cores" in warning


def test_load_guard_without_proc_goes_by_the_load_average(monkeypatch, tmp_path):
    monkeypatch.setattr(timing, "STAT", tmp_path / "missing")
    monkeypatch.setattr(timing.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(timing.os, "getloadavg", lambda: (3.0, 0, 0))
    assert "3.0 of 4 cores" in load_guard()
    monkeypatch.setattr(timing.os, "getloadavg", lambda: (0.5, 0, 0))
    assert load_guard() is None


@pytest.mark.skipif(not timing.STAT.exists(), reason="needs /proc/stat")
def test_busy_seconds_grow_with_work():
    before, end = timing._busy_seconds(), time.process_time() + 0.1
    while time.process_time() < end:
        pass
    assert timing._busy_seconds() - before >= 0.05
