"""Low-bit modules to test on: odd sizes, each with its low-rank branch and smoothing."""

import pytest
import torch
from torch import nn

from halfbyte.formats import LayerFormat
from halfbyte.layers import LowBitWeight, install


def companions(weight, layer_format):
    """smooth_factor, proj_down and proj_up of a float weight: the leading singular vectors, as quantization would choose them."""
    matrix = weight.detach().float() if weight.ndim == 2 else weight.detach().float().permute(0, 2, 3, 1).flatten(1)
    found = {"smooth_factor": torch.rand(weight.shape[1]) + 0.5} if layer_format.smooth else {}
    if rank := layer_format.rank:
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        found |= {"proj_down": v[:rank].t().contiguous(), "proj_up": (u[:, :rank] * s[:rank]).contiguous()}
    return found


def quantized(module, layer_format):
    """Install the module's own weight, quantized."""
    weight = module.weight.data
    install(module, LowBitWeight.from_float(weight, layer_format, **companions(weight, layer_format)))
    return module.requires_grad_(False)


@pytest.fixture
def make_linear():
    def make(n=72, k=128, bias=True, dtype=torch.float32, **format):
        layer_format = LayerFormat(**({"weight": "int4", "activation": "int4", "rank": 8, "smooth": True} | format))
        return quantized(nn.Linear(k, n, bias=bias, dtype=dtype), layer_format)

    return make


@pytest.fixture
def make_conv():
    def make(n=24, channels=64, kernel=3, dtype=torch.float32, stride=1, padding=1, dilation=1, **format):
        layer_format = LayerFormat(**({"weight": "int4", "activation": "int4", "rank": 8, "smooth": True} | format))
        conv = nn.Conv2d(channels, n, kernel, stride=stride, padding=padding, dilation=dilation, dtype=dtype)
        return quantized(conv, layer_format)

    return make


@pytest.fixture
def make_attention():
    """to_q, to_k and to_v on one down factor, and an output layer of their own."""

    def make(dtype=torch.float32):
        from halfbyte.layers import share_down

        layer_format = LayerFormat("int4", "int4", rank=4, smooth=True)
        names = ("to_q", "to_k", "to_v")
        model = nn.ModuleDict({name: nn.Linear(64, 24, dtype=dtype) for name in (*names, "to_out")})
        shared = companions(model["to_q"].weight, layer_format)
        shared.pop("proj_up")
        for name in names:
            up = torch.randn(24, 4, dtype=dtype) * 0.01
            install(model[name], LowBitWeight.from_float(model[name].weight.data, layer_format, proj_up=up, **shared))
        share_down([model[name].weight for name in names])
        quantized(model["to_out"], layer_format)
        return model.requires_grad_(False)

    return make
