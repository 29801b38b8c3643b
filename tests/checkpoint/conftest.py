import json
import struct

import pytest
import torch
from torch import nn


def low_bit(model, layer_format, names=None, share=True):
    """Gives every layer that fits (or the named ones) a low-bit weight; to_k and to_v read the proj_down of to_q beside them."""
    from halfbyte.layers import LowBitWeight, install, share_down

    generator = torch.Generator().manual_seed(0)
    groups = {}
    for name, module in list(model.named_modules()):
        if not isinstance(module, (nn.Linear, nn.Conv2d)) or (names is not None and name not in names):
            continue
        weight = module.weight.data
        kernel = tuple(weight.shape[2:]) or (1, 1)
        if layer_format.reason_against(weight.shape[0], weight.shape[1], kernel):
            continue
        k = weight.numel() // weight.shape[0]
        parent, _, leaf = name.rpartition(".")
        group = (parent, k) if share and leaf in ("to_q", "to_k", "to_v") else (name, k)
        members = groups.setdefault(group, [])
        down = up = smooth = None
        if layer_format.rank:
            down = 0.1 * torch.randn(k, layer_format.rank, generator=generator)
            up = 0.1 * torch.randn(weight.shape[0], layer_format.rank, generator=generator)
            down, up = down.to(weight), up.to(weight)
        if layer_format.smooth:
            smooth = (0.5 + torch.rand(weight.shape[1], generator=generator)).to(weight)
        if members and layer_format.rank:
            down = members[0].weight.proj_down
        install(module, LowBitWeight.from_float(weight, layer_format, smooth_factor=smooth, proj_down=down, proj_up=up))
        members.append(module)
    for members in groups.values():
        if len(members) > 1 and layer_format.rank:
            share_down([module.weight for module in members])
    return model


def in_dtype(model, dtype):
    """As from_pretrained(dtype=...) leaves it: parameters cast, tables computed at construction not."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model.eval()


def dit(dtype=torch.float32):
    from diffusers import DiTTransformer2DModel

    torch.manual_seed(0)
    model = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=32, in_channels=4, out_channels=8, num_layers=3, sample_size=8, patch_size=2,
        num_embeds_ada_norm=10, norm_num_groups=1,
    )  # fmt: skip
    return in_dtype(model, dtype)


def unet(dtype=torch.float32):
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    model = UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=64, attention_head_dim=8, norm_num_groups=8,
    )  # fmt: skip
    return in_dtype(model, dtype)


def run(model, seed=1):
    """One forward pass on fixed inputs -> the output tensor."""
    generator = torch.Generator().manual_seed(seed)
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    x = torch.randn(2, 4, 8, 8, generator=generator).to(dtype)
    with torch.no_grad():
        if type(model).__name__ == "DiTTransformer2DModel":
            return model(x, timestep=torch.tensor([3, 500]), class_labels=torch.tensor([1, 7])).sample
        states = torch.randn(2, 5, 64, generator=generator).to(dtype)
        return model(x, torch.tensor([3, 500]), encoder_hidden_states=states).sample


def read_raw(path):
    """A safetensors file as (header dict, data bytes)."""
    blob = path.read_bytes()
    (length,) = struct.unpack("<Q", blob[:8])
    return json.loads(blob[8 : 8 + length]), blob[8 + length :]


def write_raw(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


class Tools:
    low_bit, dit, unet, run, read_raw, write_raw = map(staticmethod, (low_bit, dit, unet, run, read_raw, write_raw))


@pytest.fixture(autouse=True)
def no_measuring(monkeypatch):
    """What runs fastest here is not the question, and measuring it for every layer size takes seconds."""
    monkeypatch.setenv("HALFBYTE_CPU_KIND", "float32")


@pytest.fixture(scope="session")
def tools():
    return Tools
