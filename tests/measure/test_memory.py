import copy

import pytest
import torch
from torch import nn

from halfbyte.measure import PeakMemory, memory, module_bytes


def test_peak_rises_with_a_temporary_and_is_reset():
    with PeakMemory() as before:
        pass
    with PeakMemory() as large:
        torch.ones(40_000_000).sum()
    with PeakMemory() as after:
        pass
    assert large.bytes - before.bytes > 100_000_000
    if large.exact:
        assert large.bytes - after.bytes > 100_000_000


def test_without_a_reset_the_peak_is_said_not_to_be_exact(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "missing" / "file")
    monkeypatch.setattr(memory, "STATUS", tmp_path / "missing")
    with PeakMemory() as peak:
        pass
    assert not peak.exact and peak.bytes > 10_000_000


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_module_bytes_counts_shared_tensors_once(device):
    a = nn.Linear(7, 5, device=device)
    b = nn.Linear(7, 5, device=device, bias=False)
    b.weight = a.weight
    model = nn.Sequential(a, b)
    model.register_buffer("table", torch.zeros(3, dtype=torch.int64, device=device))
    assert module_bytes(model) == 4 * (35 + 5) + 24


def test_a_low_bit_weight_counts_as_its_storage():
    shared = torch.zeros(6, 2)
    model = nn.Sequential(nn.Linear(6, 4, bias=False), nn.Linear(6, 4, bias=False))
    for layer in model:
        layer.weight.storage = {"qweight": torch.zeros(4, 3, dtype=torch.int8), "proj_down": shared}
    assert module_bytes(model) == 2 * 12 + 48
    assert module_bytes(copy.deepcopy(nn.Linear(6, 4, bias=False))) == 96
