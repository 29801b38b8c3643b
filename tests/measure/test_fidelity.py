import numpy as np
import pytest
import torch

from halfbyte.measure import noise_floor, psnr, ssim


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numpy_ssim(x, y, size):
    """Window by window, weights and moments spelled out."""
    axis = np.arange(size) - (size - 1) / 2
    weights = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for i in range(x.shape[0] - size + 1):
        for j in range(x.shape[1] - size + 1):
            a, b = x[i : i + size, j : j + size], y[i : i + size, j : j + size]
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            cov = (weights * (a - mean_a) * (b - mean_b)).sum()
            numerator = (2 * mean_a * mean_b + 1e-4) * (2 * cov + 9e-4)
            values.append(numerator / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)))
    return np.mean(values)


@pytest.mark.parametrize(("height", "width", "size"), [(17, 32, 7), (64, 65, 11)])
def test_ssim_equals_the_definition(height, width, size):
    x = images(2, 1, height, width)
    y = (x + 0.2 * images(2, 1, height, width, seed=1)).clamp(0, 1)
    expected = [numpy_ssim(x[i, 0].numpy(), y[i, 0].numpy(), size) for i in range(2)]
    assert ssim(x, y).numpy() == pytest.approx(expected, abs=1e-10)


def test_ssim_of_channels_is_their_mean():
    x, y = images(3, 3, 19, 23), images(3, 3, 19, 23, seed=1)
    each = torch.stack([ssim(x[:, c : c + 1], y[:, c : c + 1]) for c in range(3)])
    assert torch.allclose(ssim(x, y), each.mean(0))


def test_identical_and_symmetric():
    x, y = images(2, 3, 33, 31), images(2, 3, 33, 31, seed=1)
    assert torch.equal(ssim(x, x), torch.ones(2, dtype=torch.float64))
    assert psnr(x, x).tolist() == [float("inf")] * 2
    assert torch.equal(psnr(x, y), psnr(y, x)) and torch.allclose(ssim(x, y), ssim(y, x))


def test_psnr_of_a_known_offset_per_image():
    x = torch.full((2, 3, 5, 7), 0.5)
    y = x + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    assert psnr(y, x).tolist() == pytest.approx([20, 40], abs=1e-4)


def test_noise_floor_tells_a_repetition_from_a_variant():
    x = images(5, 3, 9, 9)
    floor = noise_floor(lambda: x, {"half": lambda: x.half()})
    assert floor["repeated"] == float("inf") and 60 < floor["half"] < 100


@pytest.mark.parametrize("shape", [(1, 3, 6, 32), (3, 32, 32)], ids=["smaller-than-window", "no-batch"])
def test_refuses_what_it_cannot_measure(shape):
    with pytest.raises(ValueError, match="images"):
        ssim(torch.zeros(shape), torch.zeros(shape))
    with pytest.raises(ValueError, match="two batches"):
        psnr(torch.zeros(1, 3, 8, 8), torch.zeros(2, 3, 8, 8))
