"""The low-rank branch: its singular directions, and that alternating it with rounding lowers the error quickly."""

import pytest
import torch

from halfbyte.formats import LayerFormat
from halfbyte.quantize import low_rank
from halfbyte.quantize.rounding import round_nearest
from halfbyte.quantize.subspace import Sum, randomised_svd, tall_svd

FORMATS = {
    "int4": LayerFormat("int4", "int4"),
    "nvfp4": LayerFormat("nvfp4", "nvfp4", four_over_six=True),
}
NEVER = 10**6


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def directed(rows=120, columns=192):
    """A weight with six strong directions."""
    return randn(rows, columns) + 3 * randn(rows, 6, seed=1) @ randn(6, columns, seed=2) / 6**0.5


def alternate(weight, rank, iterations, patience=4, tolerance=0.0, name="int4"):
    """The Alternation, and the errors that its rounds reported."""
    errors = []

    def quantize(residual):
        return round_nearest(residual, [len(weight)], FORMATS[name], torch.bfloat16)

    def error(rounded, lost, branch):
        errors.append(float(lost.square().sum()))
        return errors[-1]

    ones = torch.ones(weight.shape[1])
    basis = low_rank.start_basis(weight.shape[1], rank, 5, weight.device)
    found = low_rank.alternate(weight, rank, ones, basis, torch.float32, quantize, error, iterations, patience, tolerance)
    return found, errors


def test_a_sum_multiplies_as_the_matrix_it_stands_for():
    total = Sum(randn(30, 50), randn(30, 4, seed=1), randn(50, 4, seed=2), 2.0)
    formed = 2 * randn(30, 50) + randn(30, 4, seed=1) @ randn(50, 4, seed=2).t()
    torch.testing.assert_close(total @ randn(50, 7, seed=3), formed @ randn(50, 7, seed=3))
    torch.testing.assert_close(total.t() @ randn(30, 7, seed=3), formed.t() @ randn(30, 7, seed=3))


def test_tall_svd_is_the_svd_over_six_orders_of_magnitude():
    left = torch.linalg.qr(randn(200, 8, seed=1).double()).Q
    right = torch.linalg.qr(randn(8, 8, seed=2).double()).Q
    wanted = torch.logspace(2, -4, 8).double()
    matrix = (left * wanted @ right.t()).float()
    u, values, v = tall_svd(matrix)
    torch.testing.assert_close(values.double(), wanted, rtol=1e-2, atol=0)
    torch.testing.assert_close(u * values @ v.t(), matrix)
    torch.testing.assert_close(u.t() @ u, torch.eye(8), rtol=0, atol=1e-2)


@pytest.mark.parametrize("rank", [0, 1, 5])
def test_a_weight_of_lower_rank_than_the_branch_is_found_exactly(rank):
    weight = randn(40, max(rank, 1)) @ randn(max(rank, 1), 64, seed=1) * bool(rank)
    left, right, _ = randomised_svd(Sum.of(weight), 16, low_rank.start_basis(64, 16, 3, weight.device))
    torch.testing.assert_close(left @ right.t(), weight)


def test_randomised_svd_is_close_to_the_exact_one():
    weight = randn(97, 160) @ torch.diag(torch.logspace(0, -2, 160))
    left, right, _ = randomised_svd(Sum.of(weight), 16, low_rank.start_basis(160, 16, 3, weight.device))
    exact = torch.linalg.svdvals(weight)[16:].square().sum()
    assert (weight - left @ right.t()).square().sum() < 1.02 * exact
    assert left.shape == (97, 16) and right.shape == (160, 16)


def test_iterated_low_rank_is_no_worse_than_one_svd_and_more_rank_is_better():
    weight = directed()
    once, iterated = ([min(alternate(weight, rank, rounds)[1]) for rank in (4, 8, 16, 32)] for rounds in (1, 32))
    assert all(after <= before for before, after in zip(once, iterated, strict=True))
    assert iterated[-1] < 0.98 * once[-1]
    assert iterated == sorted(iterated, reverse=True)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(320, 512), (64, 192)], ids=str)
def test_32_rounds_leave_less_error_than_100_of_plain_alternation(name, shape, monkeypatch):
    weight = directed(*shape)
    found, _ = alternate(weight, 16, 32, name=name, tolerance=1e-3)
    monkeypatch.setattr(low_rank, "STEP", 1.0)
    monkeypatch.setattr(low_rank, "MOMENTUM", 0.0)
    plain, errors = alternate(weight, 16, 100, patience=NEVER, name=name)
    residual = found.branch.rest(weight, torch.ones(shape[1]))
    assert plain.rounds == 100 and found.rounds <= 32
    assert (residual - round_nearest(residual, [shape[0]], FORMATS[name], torch.bfloat16)).square().sum() < 0.98 * min(errors)


def test_the_round_with_the_least_error_is_kept_and_small_gains_end_the_search():
    found, errors = alternate(directed(), 16, 32, patience=3, tolerance=0.02)
    assert found.rounds == len(errors) < 32
    assert errors[found.best_round - 1] == min(errors)
    assert min(errors[-3:]) > 0.98 * min(errors[:-3])
    assert alternate(directed(), 16, 32, patience=NEVER)[0].rounds == 32
