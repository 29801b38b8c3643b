"""How a call finds its implementation, and what is said when it does not."""

import contextlib
import logging
import threading

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from halfbyte.ops import OPS, NoBackendError, Op, backends, use_backend
from halfbyte.ops.registry import backend_of_environment


@Op
def test_double(x: Tensor, factor: int = 2) -> Tensor:
    """x times factor."""
    return x * factor


test_double.set_fake(lambda x, factor=2: x.new_empty(x.shape))
OP = test_double
del test_double  # pytest would collect it


@OP.set_check
def check(x, factor=2):
    if factor < 0:
        raise ValueError(f"factor: >= 0 needed, got {factor}")


def plus_a_hundred(x, factor=2):
    return x * factor + 100


@pytest.fixture
def op(monkeypatch):
    monkeypatch.setattr(OP, "targets", {"reference": OP.reference})
    monkeypatch.setattr(OP, "rejects", {"reference": OP.rejects["reference"]})
    monkeypatch.setattr(OP, "_missing", {})
    monkeypatch.setattr("halfbyte.ops.registry._reported", set())
    return OP


X = torch.ones(3)


def test_the_reference_runs_when_there_is_nothing_else(op):
    assert op.choose(X) == "reference" and torch.equal(op(X), 2 * X)
    assert torch.equal(torch.ops.halfbyte.test_double(X, factor=3), 3 * X)


def test_a_faster_backend_of_the_device_is_preferred(op):
    op.add("cpu", plus_a_hundred).add("cuda", "nowhere:nothing")
    assert op.choose(X) == "cpu" and op(X)[0] == 102


@pytest.mark.parametrize("backend", ["triton", "simt"])
def test_a_backend_of_no_device_runs_only_when_asked_for(op, backend):
    op.add(backend, plus_a_hundred)
    assert op(X)[0] == 2
    with use_backend(backend):
        assert op(X)[0] == 102
    assert op(X)[0] == 2


def test_stepping_down_is_said_once_per_reason(op, caplog):
    op.add("cpu", plus_a_hundred, lambda x, factor=2: f"factor {factor} is not even" if factor % 2 else None)
    with caplog.at_level(logging.INFO, logger="halfbyte.ops"):
        for _ in range(2):
            assert op(X, 3)[0] == 3
        op(X, 5)
        op(X, 4)
    assert [record.getMessage() for record in caplog.records] == [
        f"test_double runs on reference because cpu said: factor {factor} is not even" for factor in (3, 5)
    ]
    assert {record.levelname for record in caplog.records} == {"INFO"}


def test_a_backend_asked_for_by_name_never_steps_down(op):
    op.add("cpu", plus_a_hundred, lambda x, factor=2: "only on Sundays")
    with use_backend("cpu"), pytest.raises(NoBackendError) as error:
        op(X)
    assert str(error.value) == "no implementation of test_double accepts this call (cpu: only on Sundays)"
    with use_backend("cuda"), pytest.raises(NoBackendError, match=r"\(cuda: not implemented\)"):
        op(X)


def test_the_error_names_every_backend_and_its_reason(op):
    op.rejects["reference"] = lambda x, factor=2: "closed"
    op.add("cpu", "halfbyte._no_such_module:double")
    with pytest.raises(NoBackendError, match=r"\(cpu: No module named 'halfbyte._no_such_module'; reference: closed\)"):
        op(X)


def test_a_target_is_imported_at_first_use_and_a_missing_function_is_a_reason(op):
    op.add("cpu", "math:no_such_function").add("simt", "math:sqrt")
    assert "no_such_function" in op.missing("cpu") and op.targets["simt"] == "math:sqrt"
    assert op.missing("simt") is None and callable(op.targets["simt"])
    assert op(X)[0] == 2


def test_the_check_runs_before_every_implementation_and_before_the_fake(op):
    op.add("cpu", plus_a_hundred)
    for device in ("cpu", "meta"):
        with pytest.raises(ValueError, match="factor: >= 0 needed, got -1"):
            op(X.to(device), -1)


def test_tensors_on_two_devices_are_refused():
    args = (torch.ones(4), None, torch.ones(4, 2, device="meta"))
    with pytest.raises(ValueError, match="quantize_act: proj_down must be on cpu like the tensors before it, got meta"):
        OPS["quantize_act"].choose(*args, "int4")


def test_a_forced_backend_is_seen_by_its_own_thread_only(op):
    op.add("simt", plus_a_hundred)
    seen = []
    with use_backend("simt"):
        thread = threading.Thread(target=lambda: seen.append(op(X)[0].item()))
        thread.start()
        thread.join()
        assert op(X)[0] == 102
    assert seen == [2]


def test_a_forced_backend_is_dropped_after_an_error(op):
    with pytest.raises(KeyError), use_backend("cuda"):
        raise KeyError
    assert op.choose(X) == "reference"


def test_the_environment_forces_a_backend_that_a_context_may_override(op, monkeypatch):
    op.add("simt", plus_a_hundred)
    monkeypatch.setattr("halfbyte.ops.registry.backend_of_environment", lambda: "simt")
    assert op(X)[0] == 102
    with use_backend("reference"):
        assert op(X)[0] == 2


def test_a_bad_value_in_the_environment_is_named(monkeypatch):
    monkeypatch.setenv("HALFBYTE_BACKEND", "gpu")
    with pytest.raises(ValueError, match="HALFBYTE_BACKEND: one of cuda, .* needed, got 'gpu'"):
        backend_of_environment.__wrapped__()


def test_names_are_checked(op):
    with pytest.raises(ValueError, match="backend: one of cuda, .* needed, got 'rocm'"):
        op.add("rocm", plus_a_hundred)
    with pytest.raises(ValueError, match="backend: one of cuda, .* needed, got 'Cuda'"), use_backend("Cuda"):
        pass
    with pytest.raises(ValueError, match="test_double already has an implementation for 'reference'"):
        op.add("reference", plus_a_hundred)


def test_every_op_has_a_reference_everywhere():
    assert set(backends()["reference"]) == set(OPS)


@pytest.mark.parametrize(("current", "entered"), [(1, []), (0, [torch.device("cuda:1")])])
def test_kernels_start_on_the_gpu_of_their_tensors(op, monkeypatch, current, entered):
    """Whatever GPU is current: a launch on another than its stream's fails, or worse."""
    seen = []

    @contextlib.contextmanager
    def device(wanted):
        seen.append(wanted)
        yield
        assert ran == [1]

    ran = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
    monkeypatch.setattr(torch.cuda, "device", device)
    op.add("cuda", lambda x, factor=2: ran.append(1))
    with FakeTensorMode():
        op._run(torch.empty(3, device="cuda:1"))
    assert seen == entered and ran == [1]
