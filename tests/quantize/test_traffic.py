"""What a round of the low-rank fit reads and writes: on a GPU its time, as every pass over a large weight goes through memory."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from halfbyte.formats import LayerFormat
from halfbyte.quantize import RECIPES, quantize_group

N, K, RANK = 512, 1024, 8
SMALL = 64  # what is smaller than the weight by this factor is no pass over it


class Traffic(TorchDispatchMode):
    """Bytes that operations read and write, views not counted, and how often the host reads what they made."""

    def __init__(self):
        super().__init__()
        self.bytes = self.host_reads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outputs = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.host_reads += name in ("_local_scalar_dense", "_linalg_eigh")
        if not func.is_view and "empty" not in name:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, outputs)) if isinstance(leaf, torch.Tensor)]
            self.bytes += sum(tensor.nbytes for tensor in tensors if tensor.numel() > N * K / SMALL)
        return outputs


def traffic(name, iterations):
    recipe = replace(RECIPES[name], iterations=iterations, tolerance=0, patience=100)
    torch.manual_seed(0)
    layer = nn.Linear(K, N, dtype=torch.bfloat16)
    layer_format = LayerFormat(recipe.weight, recipe.activation, RANK, True, four_over_six=recipe.four_over_six)
    with Traffic() as counted:
        quantize_group("layer", [layer], layer_format, recipe)
    return counted


@pytest.mark.parametrize(("name", "most"), [("svdq_int4", 80), ("svdq_nvfp4", 350)])
def test_bytes_of_a_round_per_weight(name, most):
    fewer, more = traffic(name, 6), traffic(name, 7)
    assert 0.8 * most < (more.bytes - fewer.bytes) / (N * K) <= most
    # Two small eigenproblems, each with its largest value, and the error.
    assert more.host_reads - fewer.host_reads == 5


@pytest.mark.parametrize(("name", "most"), [("svdq_int4", 220), ("svdq_nvfp4", 920)])
def test_bytes_of_a_fit_of_one_round_per_weight(name, most):
    assert traffic(name, 1).bytes / (N * K) <= most
