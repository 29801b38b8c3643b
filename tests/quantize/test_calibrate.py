"""What calibration keeps: uniform, repeatable samples, split by image, within bounds, and no hook left behind."""

import pytest
import torch
from torch import nn

from halfbyte.quantize.attention_error import AttentionError
from halfbyte.quantize.calibrate import Tap, collect, sample_bytes
from halfbyte.quantize.reservoir import CallReservoir, RowReservoir


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


class Attention(nn.Module):
    """softmax(q k^T) v over [B, T, 8], written to be called with keywords."""

    def __init__(self):
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, hidden_states, scale=None):
        q, k, v = self.to_q(hidden_states), self.to_k(hidden_states), self.to_v(hidden_states)
        return nn.functional.scaled_dot_product_attention(q, k, v, scale=scale), None


@pytest.fixture
def attention():
    torch.manual_seed(3)
    return Attention()


def numbered(first, batch, tokens):
    """Rows that carry their own number and that of their sample."""
    number = torch.arange(first, first + batch * tokens, dtype=torch.float32).view(batch, tokens, 1)
    return torch.cat([number, torch.arange(batch).view(batch, 1, 1).expand(batch, tokens, 1)], -1)


def fill(reservoir, calls=20, batch=8, tokens=5):
    for call in range(calls):
        x = numbered(call * batch * tokens, batch, tokens).flatten(0, 1)
        reservoir.offer(len(x), tokens, lambda index, x=x: x[index])
    return reservoir.rows()


def test_rows_are_uniform_without_repeats_and_split_by_sample():
    fit, held_out = fill(RowReservoir(60, seed=1))
    assert len(fit) == 45 and len(held_out) == 15
    numbers = torch.cat([fit, held_out])[:, 0]
    assert len(numbers.unique()) == 60
    assert set(held_out[:, 1].tolist()) <= {3.0, 7.0}
    assert not set(fit[:, 1].tolist()) & {3.0, 7.0}
    means = torch.stack([torch.cat(fill(RowReservoir(60, seed=seed)))[:, 0].mean() for seed in range(40)])
    assert abs(float(means.mean()) - 399.5) < 4 * 231 / (60 * 40) ** 0.5


def test_the_same_stream_gives_the_same_rows_and_another_seed_others():
    first, again, other = fill(RowReservoir(60, 1)), fill(RowReservoir(60, 1)), fill(RowReservoir(60, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_a_short_stream_is_kept_whole_and_small_batches_are_split_by_row():
    fit, held_out = fill(RowReservoir(400, 1), calls=4, batch=1, tokens=50)
    assert len(fit) + len(held_out) == 200
    assert 25 <= len(held_out) <= 75


def test_large_calls_leave_fewer():
    reservoir = CallReservoir(capacity=4, token_limit=100, seed=0)
    for call in range(30):
        reservoir.offer(10 if call < 10 else 45, lambda call=call: call)
    assert len(reservoir.calls()) == 2


def test_collect_hears_rows_and_calls_and_leaves_no_hook(attention):
    x = torch.randn(6, 7, 8)
    tap = Tap("block.to_q", attention.to_q, rows=16, attention=attention)
    samples = collect([tap], lambda: [attention(x, scale=0.5) for _ in range(9)])["block.to_q"]
    assert samples.fit.shape == (12, 8) and samples.held_out.shape == (4, 8)
    rows = x.flatten(0, 1)
    assert all((rows == row).all(1).any() for row in torch.cat([samples.fit, samples.held_out]))
    assert [call[1] for call in samples.calls] == [{"scale": 0.5}] * 4
    assert not attention._forward_pre_hooks and not attention.to_q._forward_pre_hooks
    assert sample_bytes(tap) > sum(t.numel() * 4 for t in (samples.fit, samples.held_out))


def test_hooks_go_when_calibration_fails(attention):
    def fail():
        attention(torch.randn(1, 4, 8))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect([Tap("to_q", attention.to_q, 16, attention)], fail)
    assert not attention._forward_pre_hooks and not attention.to_q._forward_pre_hooks


def test_a_layer_that_is_never_called_has_no_samples(attention):
    assert collect([Tap("to_q", attention.to_q, 16)], lambda: None) == {}


def test_attention_error_is_zero_for_the_float_layers_and_restores_them(attention):
    calls = [((torch.randn(2, 5, 8),), {"scale": 0.3})]
    error = AttentionError(attention, [attention.to_k, attention.to_v], calls)
    assert error([nn.Linear.forward.__get__(layer) for layer in (attention.to_k, attention.to_v)]) == 0
    expected = (torch.zeros(2, 5, 8) - attention(*calls[0][0], scale=0.3)[0]).square().sum()
    assert error([lambda x: x, torch.zeros_like]) == pytest.approx(float(expected), rel=1e-5)
    assert "forward" not in vars(attention.to_k) and "forward" not in vars(attention.to_v)
