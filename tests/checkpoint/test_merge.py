import pytest
import torch
from torch import nn

from halfbyte.checkpoint import CheckpointError, LayerMap, attach_quantizer, flatten, merge_adapters, register
from halfbyte.formats import LayerFormat

register()
SVDQ = LayerFormat("int4", "int4", rank=4, smooth=True)
PLAIN = LayerFormat("int4", None)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.to_q, self.to_k, self.to_v = (nn.Linear(64, n) for n in (64, 64, 128))
        self.to_out = nn.Linear(64, 24)


def fuse(layer, rank, seed):
    generator = torch.Generator().manual_seed(seed)
    n, k = layer.weight.shape
    delta = torch.randn(n, rank, generator=generator) @ torch.randn(rank, k, generator=generator) * 0.05
    layer.weight.data += delta
    return delta


@pytest.mark.parametrize("layer_format", [SVDQ, PLAIN], ids=["rank-4", "rank-0"])
def test_weights_keep_their_value_and_siblings_go_on_sharing(tools, layer_format):
    model = tools.low_bit(Attention(), layer_format)
    fuse(model.to_q, 3, seed=1)
    fuse(model.to_v, 2, seed=2)
    fuse(model.to_out, 5, seed=3)
    before = {name: p.dequantize() for name, p in model.named_parameters() if hasattr(p, "layer_format")}
    with pytest.raises(CheckpointError, match="to_q: a weight without a fused adapter .* merge_adapters"):
        flatten(model)
    changed = merge_adapters(model)
    rank = layer_format.rank
    if rank:
        assert changed == ["to_q", "to_k", "to_v", "to_out"]
        assert model.to_q.weight.layer_format.rank == model.to_k.weight.layer_format.rank == rank + 5
        assert LayerMap.of(dict(model.named_parameters())).down_owner == {"to_k": "to_q", "to_v": "to_q"}
    else:
        assert changed == ["to_q", "to_v", "to_out"] and model.to_k.weight.layer_format == PLAIN
    for name, weight in before.items():
        assert torch.allclose(model.get_parameter(name).dequantize(), weight, atol=2**-8 * float(weight.abs().max())), name
    assert "to_out.proj_down" in flatten(model)


def test_nothing_fused_changes_nothing(tools):
    model = tools.low_bit(Attention(), SVDQ)
    before = flatten(model)
    assert merge_adapters(model) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in flatten(model).items())


def test_a_dense_update_is_refused_before_anything_changes(tools):
    model = tools.low_bit(Attention(), PLAIN)
    fuse(model.to_q, 2, seed=1)
    model.to_out.weight.data += torch.randn(24, 64, generator=torch.Generator().manual_seed(2))
    with pytest.raises(ValueError, match="to_out.weight: .*(low rank|larger)"):
        merge_adapters(model)
    assert model.to_q.weight.layer_format == PLAIN and model.to_q.weight.side


def test_a_fused_lora_survives_saving(tools, tmp_path):
    from peft import LoraConfig

    model = tools.low_bit(tools.unet(), SVDQ)
    attach_quantizer(model)
    torch.manual_seed(5)
    plain = tools.run(model)
    model.add_adapter(LoraConfig(r=2, lora_alpha=4, init_lora_weights=False, target_modules=["to_q", "to_out.0"]))
    model.fuse_lora()
    model.unload_lora()
    fused = tools.run(model)
    with pytest.raises(CheckpointError, match="fused adapter"):
        model.save_pretrained(tmp_path)
    merge_adapters(model)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert torch.equal(tools.run(again), tools.run(model))
    assert (fused - plain).abs().max() > 100 * (tools.run(again) - fused).abs().max()
