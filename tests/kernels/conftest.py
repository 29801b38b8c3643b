"""On a GPU with pytest-xdist, a kernel that faults or never ends costs its own test alone."""

import os

import pytest
import torch

from halfbyte.testing.gpu_worker import ends_when_broken


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    if not torch.cuda.is_available() or "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    with ends_when_broken():
        return (yield)
