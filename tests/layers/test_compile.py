"""torch.compile takes modules with low-bit weights in one graph and computes the same."""

import pytest
import torch
from torch import nn

from halfbyte.layers import prepare


class Block(nn.Module):
    def __init__(self, attention, conv):
        super().__init__()
        self.attention, self.conv = attention, conv

    def forward(self, x):
        q, k, v = (self.attention[name](x) for name in ("to_q", "to_k", "to_v"))
        image = x.transpose(1, 2).unflatten(2, (3, 5))
        return q * k + v, self.conv(image)


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def block(make_attention, make_conv):
    return Block(make_attention(), make_conv(n=8, rank=4))


def compare(block, x):
    with torch.no_grad():
        eager = block(x)
        compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
        for got, want in zip(compiled(x), eager, strict=True):
            torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
        with torch._dynamo.config.patch(error_on_recompile=True):
            compiled(x + 1)


CASES = [("native", "float32"), ("native", "bfloat16"), ("native", "int8"), ("w4a4", "auto"), ("w4a8", "auto")]


@pytest.mark.parametrize(("numerics", "kind"), CASES)
def test_one_graph_and_no_recompilation(block, numerics, kind, monkeypatch):
    monkeypatch.setenv("HALFBYTE_CPU_KIND", kind)
    prepare(block, numerics)
    compare(block, torch.randn(2, 15, 64))


def test_unprepared_weights_are_traced(block, monkeypatch):
    monkeypatch.setenv("HALFBYTE_CPU_KIND", "float32")
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 15, 64)
    with torch.no_grad():
        got = compiled(x)
        for a, b in zip(got, block(x), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_a_fused_adapter_reaches_compiled_code(block, monkeypatch):
    monkeypatch.setenv("HALFBYTE_CPU_KIND", "float32")
    prepare(block)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 15, 64)
    with torch.no_grad():
        before = compiled(x)[0]
        for name in ("to_q", "to_k", "to_v"):
            block.attention[name].weight.data += 0.1
        prepare(block)
        torch.testing.assert_close(compiled(x)[0], block(x)[0], atol=1e-5, rtol=1e-5)
        assert (compiled(x)[0] - before).abs().max() > 0.1


def test_blocks_of_one_shape_share_one_compilation(make_attention, monkeypatch):
    monkeypatch.setenv("HALFBYTE_CPU_KIND", "float32")
    layers = [make_attention()["to_out"] for _ in range(3)]
    counter = torch._dynamo.testing.CompileCounter()
    forward = torch.compile(lambda layer, x: layer(x), fullgraph=True, backend=counter)
    x = torch.randn(4, 64)
    with torch.no_grad():
        for layer in layers:
            prepare(layer)
            torch.testing.assert_close(forward(layer, x), layer(x))
    assert counter.frame_count == 1


@pytest.mark.slow
def test_inductor_computes_the_same(make_attention):
    linear = make_attention()["to_out"]
    prepare(linear, "w4a4")
    x = torch.randn(5, 64)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(linear, fullgraph=True)(x), linear(x), atol=1e-5, rtol=1e-5)
