"""PEFT's own LoRA layers on low-bit modules: load, fuse, unfuse, unload."""

import pytest
import torch
from torch import nn

peft = pytest.importorskip("peft")


class Block(nn.Module):
    def __init__(self, conv, linear):
        super().__init__()
        self.conv, self.linear = conv, linear

    def forward(self, x):
        return self.linear(self.conv(x).mean((2, 3)))


@pytest.fixture
def block(make_conv, make_linear):
    return Block(make_conv(n=64, channels=64), make_linear(n=40, k=64))


def with_lora(block, **options):
    config = peft.LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, target_modules=["conv", "linear"], **options)
    return peft.get_peft_model(block, config)


def an_input():
    return torch.randn(2, 64, 6, 5)


@pytest.mark.parametrize("safe_merge", [False, True], ids=["in-place", "safe"])
def test_fused_equals_loaded_and_unfused_equals_before(block, safe_merge):
    x = an_input()
    plain = block(x)
    model = with_lora(block)
    loaded = model(x)
    assert (loaded - plain).abs().max() > 1e-3
    for _ in range(2):
        model.merge_adapter(safe_merge=safe_merge)
        torch.testing.assert_close(model(x), loaded, atol=1e-5, rtol=0)
        model.unmerge_adapter()
        assert torch.equal(model(x), loaded)
    assert torch.equal(model.unload()(x), plain)
    assert block.linear.weight.side == () and block.conv.weight.side == ()


def test_unload_after_fusing_keeps_the_adapter(block):
    x = an_input()
    model = with_lora(block)
    loaded = model(x)
    merged = model.merge_and_unload()
    assert type(merged.linear) is nn.Linear
    torch.testing.assert_close(merged(x), loaded, atol=1e-5, rtol=0)


def test_two_adapters(block):
    x = an_input()
    model = with_lora(block)
    model.add_adapter("second", peft.LoraConfig(r=2, init_lora_weights=False, target_modules=["linear"]))
    model.base_model.set_adapter(["default", "second"])
    loaded = model(x)
    model.merge_adapter()
    torch.testing.assert_close(model(x), loaded, atol=1e-5, rtol=0)
    assert len(block.linear.base_layer.weight.side) == 2
    model.unmerge_adapter()
    assert torch.equal(model(x), loaded)


def test_dora_reads_and_replaces_the_weight(block):
    x = an_input()
    model = with_lora(block, use_dora=True)
    loaded = model(x)
    model.merge_adapter()
    torch.testing.assert_close(model(x), loaded, atol=1e-4, rtol=0)
    model.unmerge_adapter()
    torch.testing.assert_close(model(x), loaded, atol=1e-4, rtol=0)
