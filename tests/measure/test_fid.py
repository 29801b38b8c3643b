import pytest
import torch

from halfbyte.measure import features, frechet_distance


def normal(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_moments(x, scale, mean):
    """x moved to exactly this mean and this diagonal covariance."""
    x = x - x.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(x.T))
    return x @ vectors @ torch.diag(values.rsqrt()) @ torch.diag(scale) + mean


def test_closed_form_of_two_diagonal_gaussians():
    scale_x, scale_y, mean = (
        torch.tensor([1.0, 2, 3]).double(),
        torch.tensor([2.0, 2, 0.5]).double(),
        torch.tensor([0.5, 0, -1]).double(),
    )
    x, y = with_moments(normal(211, 3, 0), scale_x, 0), with_moments(normal(97, 3, 1), scale_y, mean)
    expected = float(mean.square().sum() + (scale_x - scale_y).square().sum())
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_same_set_symmetry_and_rotation():
    x, y = normal(120, 11, 0), 1.5 * normal(150, 11, 1) + 0.3
    rotation = torch.linalg.qr(normal(11, 11, 2)).Q
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-9)
    assert frechet_distance(x @ rotation, y @ rotation) == pytest.approx(frechet_distance(x, y), rel=1e-9)


def test_fewer_rows_than_features_and_a_single_feature():
    assert frechet_distance(normal(5, 40, 0), normal(6, 40, 1)) > 0
    x = normal(50, 1, 2)
    assert frechet_distance(x, x + 2) == pytest.approx(4)


def test_bias_grows_as_the_sample_shrinks():
    few = sum(frechet_distance(normal(50, 8, i), normal(50, 8, 100 + i)) for i in range(5))
    many = sum(frechet_distance(normal(800, 8, i), normal(800, 8, 100 + i)) for i in range(5))
    assert few > 5 * many


def test_features_do_not_depend_on_the_batch_size():
    images = normal(23, 3 * 4 * 4, 3).view(23, 3, 4, 4)
    network = torch.nn.Conv2d(3, 2, 3).double()
    assert torch.equal(features(network, images, 7), features(network, images, 23).view(23, 8))
    assert not features(network, images).requires_grad


@pytest.mark.parametrize(
    ("x", "y"), [((4, 3), (4, 2)), ((1, 3), (4, 3)), ((4,), (4,))], ids=["width", "one-row", "one-dimension"]
)
def test_refuses_wrong_shapes(x, y):
    with pytest.raises(ValueError, match="features"):
        frechet_distance(torch.zeros(x), torch.zeros(y))


def test_refuses_nan():
    with pytest.raises(ValueError, match="finite"):
        frechet_distance(normal(5, 2, 0) * float("nan"), normal(5, 2, 0))
