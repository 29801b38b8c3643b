"""diffusers' group offload moves low-bit layers to and fro."""

import pytest
import torch

hooks = pytest.importorskip("diffusers.hooks")


@pytest.mark.parametrize("offload_type", ["leaf_level", "block_level"])
def test_group_offload_changes_no_bit(make_attention, offload_type):
    model = make_attention()
    x = torch.randn(5, 64)
    before = {name: layer(x) for name, layer in model.items()}
    options = {"num_blocks_per_group": 1} if offload_type == "block_level" else {}
    cpu = torch.device("cpu")
    hooks.apply_group_offloading(model, onload_device=cpu, offload_device=cpu, offload_type=offload_type, **options)
    for _ in range(2):
        for name, layer in model.items():
            assert torch.equal(layer(x), before[name])
    assert len({model[name].weight.proj_down.data_ptr() for name in ("to_q", "to_k", "to_v")}) == 1


def test_the_setter_that_offload_uses_replaces_the_stored_tensors(make_linear):
    weight = make_linear().weight
    weight.data = weight.data.to(torch.bfloat16)
    assert weight.dtype == torch.bfloat16 and weight.proj_up.dtype == torch.bfloat16
    assert isinstance(weight, torch.nn.Parameter)
