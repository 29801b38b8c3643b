"""The shim's controls as Python sees them, on the built extension."""

import pytest
import torch

from halfbyte.ops import OPS, use_backend
from halfbyte.testing import Inputs

simt = pytest.importorskip("halfbyte._simt", reason="the host shim is built with HALFBYTE_SIMT=1")


@pytest.fixture
def product():
    inputs = Inputs(torch.float16)
    qx, ascales = inputs.act(40, 128, "int4")
    args = (qx, ascales, *inputs.weight(24, 128, "int4"), *inputs.companions(40, 24, 16, True), False, torch.float16)

    def call():
        with use_backend("simt"):
            return OPS["gemm_w4a4"](*args)

    yield call
    simt.set_recorder(None)


def test_recorder_takes_launches_until_it_is_removed(product):
    calls = []
    simt.set_recorder(lambda *call: calls.append(call))
    product()
    ((symbol, name, grid, threads, shared_bytes, arguments),) = calls
    assert symbol.startswith("_ZN8halfbyte")
    assert isinstance(name, str)
    assert len(grid) == 3
    assert threads % 32 == 0
    assert shared_bytes > 0
    assert isinstance(arguments, bytes)
    simt.set_recorder(None)
    product()
    assert len(calls) == 1


def test_what_the_recorder_raises_reaches_the_caller(product):
    def refuse(*call):
        raise LookupError("no PTX for this kernel")

    simt.set_recorder(refuse)
    with pytest.raises(LookupError, match="no PTX for this kernel"):
        product()


def test_work_is_counted_until_it_is_taken(product):
    simt.take_work()
    product()
    # One tile of 64 x 64, one step of codes and one of ranks, both of two slices.
    products, bank_conflicts, global_accesses, shared_accesses = simt.take_work()
    assert (products, bank_conflicts) == (4 * 8 * 2 * 2, 0)
    # 16 bytes at a time, of the 40 + 24 rows there are: 64 bytes of codes and 32 of ranks. Scales and the output come on top.
    copied = 64 * (4 + 2)
    assert copied < global_accesses < 2 * copied < shared_accesses
    assert simt.take_work() == (0, 0, 0, 0)


def test_memory_that_is_not_registered_is_a_fault(product, monkeypatch):
    assert issubclass(simt.Fault, RuntimeError)
    monkeypatch.setattr(simt, "register_memory", lambda memory: simt.clear_memory())
    with pytest.raises(simt.Fault, match="has no registered memory to go to"):
        product()
    monkeypatch.undo()
    assert torch.equal(product(), product())
