"""Adapters fused into a low-bit weight are exact, and leave no trace when they are taken out."""

import copy

import pytest
import torch
import torch.nn.functional as F

from halfbyte.layers.side_branch import MAX_TERMS, add_delta, factorize

RANK = 4


def adapter(shape, seed, rank=RANK, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    n, k = shape[0], torch.Size(shape[1:]).numel()
    delta = torch.randn(n, rank, generator=generator) @ torch.randn(rank, k, generator=generator) * 0.01
    return delta.reshape(shape).to(dtype)


@pytest.fixture(params=["linear", "conv"])
def module(request, make_linear, make_conv):
    return make_linear() if request.param == "linear" else make_conv()


def an_input(module):
    return torch.randn(3, 128) if isinstance(module, torch.nn.Linear) else torch.randn(2, 64, 5, 6)


def test_fused_adapter_adds_exactly_its_product(module):
    x = an_input(module)
    before, delta = module(x), adapter(module.weight.shape, 1)
    module.weight.data += delta
    product = F.linear(x, delta) if delta.ndim == 2 else F.conv2d(x, delta, None, module.stride, module.padding)
    torch.testing.assert_close(module(x), before + product, atol=1e-5, rtol=0)
    assert [term.down.shape[0] for term in module.weight.side] == [RANK]


@pytest.mark.parametrize("numerics", ["native", "w4a4", "w4a8"])
def test_fused_adapter_reads_the_unrounded_input(module, numerics):
    from halfbyte.layers import prepare

    prepare(module, numerics)
    x = an_input(module)
    before, delta = module(x), adapter(module.weight.shape, 1)
    module.weight.data += delta
    product = F.linear(x, delta) if delta.ndim == 2 else F.conv2d(x, delta, None, module.stride, module.padding)
    torch.testing.assert_close(module(x), before + product, atol=1e-5, rtol=0)


def test_the_same_adapter_taken_out_restores_every_bit(module):
    x = an_input(module)
    before = module(x)
    for _ in range(3):
        module.weight.data += adapter(module.weight.shape, 1)
        module.weight.data -= adapter(module.weight.shape, 1)
    assert module.weight.side == ()
    assert torch.equal(module(x), before)


def test_adapters_leave_in_any_order(module):
    shape = module.weight.shape
    module.weight.data += adapter(shape, 2)
    only_second = module(x := an_input(module))
    module.weight.data += adapter(shape, 1)
    module.weight.data += adapter(shape, 2)
    module.weight.data -= adapter(shape, 2)
    module.weight.data -= adapter(shape, 1)
    assert torch.equal(module(x), only_second)


def test_an_adapter_rounded_to_bfloat16_still_cancels(make_linear):
    linear = make_linear(dtype=torch.bfloat16)
    delta = adapter((72, 128), 1)
    linear.weight.data += delta
    linear.weight.data -= delta.to(torch.bfloat16)
    assert linear.weight.side == ()


def test_aliases_see_an_update_and_copies_do_not(module):
    weight = module.weight
    alias, clone, copied = weight.data, weight.detach().clone(), copy.deepcopy(module).weight
    before = weight.dequantize()
    weight.data += adapter(weight.shape, 1)
    assert not torch.equal(alias.dequantize(), before)
    assert torch.equal(clone.dequantize(), before) and torch.equal(copied.dequantize(), before)
    clone += adapter(weight.shape, 2)
    assert len(weight.side) == 1


def test_a_copy_made_while_fused_keeps_the_adapter(module):
    weight = module.weight
    weight.data += adapter(weight.shape, 1)
    fused, copied = weight.dequantize(), copy.deepcopy(module)
    weight.data -= adapter(weight.shape, 1)
    assert torch.equal(copied.weight.dequantize(), fused)
    copied.weight.data -= adapter(weight.shape, 1)
    assert torch.equal(copied.weight.dequantize(), weight.dequantize())


def test_assigning_float_data_is_exact_to_rounding_and_reversible(module):
    weight = module.weight
    before = weight.dequantize()
    scaled = before * torch.linspace(0.9, 1.1, weight.shape[0]).reshape(-1, *[1] * (weight.ndim - 1))
    weight.data = scaled
    torch.testing.assert_close(weight.dequantize(), scaled, atol=1e-6, rtol=0)
    weight.data = before
    assert weight.side == () and torch.equal(weight.dequantize(), before)


@pytest.mark.parametrize("size", [(40, 100), (300, 520), (1000, 272)], ids=str)
@pytest.mark.parametrize("rank", [1, 7, 40])
def test_factors_have_the_rank_and_the_value_of_the_update(size, rank):
    delta = adapter(size, 3, rank)
    term = factorize(delta, 1e-6)
    if rank * sum(size) < size[0] * size[1]:
        assert term.down.shape == (rank, size[1])
    else:
        assert term.down is None
    assert torch.linalg.vector_norm(term.matrix - delta) <= 2e-6 * torch.linalg.vector_norm(delta)


@pytest.mark.parametrize("size", [(40, 100), (300, 520)], ids=str)
def test_an_update_of_full_rank_is_kept_as_it_is(size):
    delta = torch.randn(size)
    term = factorize(delta, 1e-6)
    assert term.down is None and torch.equal(term.matrix, delta)


def test_many_unrelated_updates_are_compacted():
    deltas = [adapter((64, 96), seed, rank=1) for seed in range(3 * MAX_TERMS)]
    terms = ()
    for delta in deltas:
        terms = add_delta(terms, delta, 1e-6)
        assert len(terms) <= MAX_TERMS
    total = sum(deltas[1:], deltas[0])
    torch.testing.assert_close(sum(term.matrix for term in terms), total, atol=1e-6, rtol=1e-5)


def test_zero_updates_leave_no_term_and_nan_is_refused(make_linear):
    weight = make_linear().weight
    weight.data += torch.zeros(72, 128)
    weight.data += 0
    assert weight.side == ()
    with pytest.raises(ValueError, match="weight: a finite update needed"):
        weight.data += torch.full((72, 128), float("nan"))


def test_alpha_and_scalars(make_linear):
    weight = make_linear().weight
    before, delta = weight.dequantize(), adapter((72, 128), 1)
    weight.data.add_(delta, alpha=-0.5)
    torch.testing.assert_close(weight.dequantize(), before - 0.5 * delta)
    weight.data.sub_(0.25)
    torch.testing.assert_close(weight.dequantize(), before - 0.5 * delta - 0.25)
