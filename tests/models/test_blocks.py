"""Blocks and denoisers are found by structure."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from halfbyte.models import find_denoisers, find_stacks


class TinyAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_q, self.to_out = nn.Linear(4, 4), nn.Linear(4, 4)


class Block(nn.Module):
    def __init__(self, attention=True, linears=2):
        super().__init__()
        self.mix = TinyAttention() if attention else nn.Identity()
        self.ff = nn.Sequential(*(nn.Linear(4, 4) for _ in range(linears)))


class Stage(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(count))


class Denoiser(nn.Module):
    def __init__(self, **stacks):
        super().__init__()
        for name, stack in stacks.items():
            setattr(self, name, stack)

    def forward(self, hidden_states, timestep):
        return hidden_states


def names(model):
    return [stack.name for stack in find_stacks(model)]


def test_a_list_of_attention_blocks_is_a_stack():
    stacks = find_stacks(Denoiser(layers=nn.ModuleList(Block() for _ in range(3))))
    assert [(stack.name, len(stack.blocks)) for stack in stacks] == [("layers", 3)]
    assert [name for name, _ in stacks[0].named_blocks()] == ["layers.0", "layers.1", "layers.2"]


@pytest.mark.parametrize(
    "blocks",
    [
        nn.ModuleList(),
        nn.ModuleList([Block(), TinyAttention()]),
        nn.ModuleList([Block(attention=False), Block(attention=False)]),
        nn.ModuleList([TinyAttention().to_q, TinyAttention().to_q]),
    ],
    ids=["empty", "mixed classes", "no attention", "bare linears"],
)
def test_other_lists_are_not(blocks):
    assert names(Denoiser(layers=blocks)) == []


def test_stages_give_way_to_the_blocks_inside_them():
    assert names(Denoiser(down=nn.ModuleList([Stage(1), Stage(2)]))) == ["down.0.blocks", "down.1.blocks"]


def test_real_denoisers_on_the_meta_device():
    import diffusers

    with torch.device("meta"):
        flux = diffusers.FluxTransformer2DModel(
            num_layers=2, num_single_layers=3, attention_head_dim=16, num_attention_heads=2, axes_dims_rope=(4, 4, 8)
        )
        unet = diffusers.UNet2DConditionModel(
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32,
        )
    assert names(flux) == ["transformer_blocks", "single_transformer_blocks"]
    found = names(unet)
    assert all(name.endswith("transformer_blocks") for name in found)
    assert {name.split(".")[0] for name in found} == {"down_blocks", "mid_block", "up_blocks"}


def test_denoisers_are_the_components_that_take_a_timestep():
    class TinyControlNet(Denoiser):
        pass

    TinyControlNet.__name__ = "TinyControlNet"
    model, second = Denoiser(), Denoiser()
    pipe = SimpleNamespace(
        components={
            "vae": nn.Linear(2, 2),
            "transformer": model,
            "transformer_2": second,
            "same": model,
            "controlnet": TinyControlNet(),
            "scheduler": object(),
        }
    )
    assert find_denoisers(pipe) == {"transformer": model, "transformer_2": second}


def test_a_pipeline_without_a_denoiser_is_refused_by_name():
    with pytest.raises(ValueError, match=r"forward takes a timestep; SimpleNamespace holds vae \(Linear\)"):
        find_denoisers(SimpleNamespace(components={"vae": nn.Linear(2, 2)}))
