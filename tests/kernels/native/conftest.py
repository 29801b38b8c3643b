"""Running the CUDA kernels' source on the host shim."""

import pytest
import torch

from halfbyte.ops import OPS, use_backend
from halfbyte.testing import poisoned_empty, schedule


def as_tuple(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


def as_bytes(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8)


@pytest.fixture
def simt():
    """The extension module of the shim."""
    return pytest.importorskip("halfbyte._simt", reason="the host shim is built with HALFBYTE_SIMT=1")


@pytest.fixture
def run(simt):
    """run(name, args, schedules, races=False): the op's outputs, which must have the same bits in every schedule."""

    def run_on_schedules(name, args, schedules=((0, False),), races=False):
        first = None
        for order in schedules:
            with schedule(*order, races), use_backend("simt"), poisoned_empty():
                outputs = OPS[name](*args)
            first = outputs if first is None else first
            for got, want in zip(as_tuple(outputs), as_tuple(first), strict=True):
                assert torch.equal(as_bytes(got), as_bytes(want)), order
        return first

    return run_on_schedules
