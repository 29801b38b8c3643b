import pytest
import torch

from halfbyte.measure import paired_difference, paired_ratio


def test_interval_matches_the_normal_theory():
    a = torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    interval = paired_difference(a, torch.zeros(400))
    half_width = 1.96 * float(a.std()) / 20
    assert interval.estimate == pytest.approx(float(a.mean()))
    assert interval.high - interval.estimate == pytest.approx(half_width, rel=0.1)
    assert interval.estimate - interval.low == pytest.approx(half_width, rel=0.1)


def test_pairing_removes_what_both_share():
    generator = torch.Generator().manual_seed(2)
    shared = 100 * torch.randn(63, generator=generator)
    a, b = shared + 1 + 0.1 * torch.randn(63, generator=generator), shared
    assert paired_difference(a, b).excludes(0)
    assert not paired_difference(a, b[torch.randperm(63, generator=generator)]).excludes(0)


def test_ninety_five_percent_intervals_cover_the_truth_about_that_often():
    generator = torch.Generator().manual_seed(3)
    covered = sum(
        not paired_difference(torch.randn(40, generator=generator), torch.zeros(40), resamples=400, seed=i).excludes(0)
        for i in range(200)
    )
    assert 0.88 < covered / 200 < 0.99


def test_ratio_is_free_of_scale_and_inverts():
    a, b = [2.0, 4.1, 8.3], [1.0, 2.0, 4.0]
    ratio, inverse = paired_ratio(a, b), paired_ratio(b, a)
    assert ratio.low <= ratio.estimate <= ratio.high and 2 < ratio.estimate < 2.1
    assert ratio.estimate * inverse.estimate == pytest.approx(1)
    assert paired_ratio([1000 * x for x in a], b).estimate == pytest.approx(1000 * ratio.estimate)


def test_seeded_and_sliced_the_same():
    a = torch.randn(1001, generator=torch.Generator().manual_seed(4))
    assert paired_difference(a, -a, seed=7) == paired_difference(a, -a, seed=7)
    assert paired_difference(a, -a, seed=7) != paired_difference(a, -a, seed=8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_difference([1, 2], [1]), "got 2 and 1"),
        (lambda: paired_difference([1], [1]), "at least 2"),
        (lambda: paired_ratio([1, 0], [1, 1]), "values > 0"),
        (lambda: paired_difference([1, 2], [1, 2], confidence=95), "between 0 and 1"),
    ],
    ids=["length", "too-few", "zero", "percent"],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
