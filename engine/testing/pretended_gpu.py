"""A GPU that is not there, for everything but its kernels: tensors without memory on `cuda`, chosen for as on a real one.

Ops return what their fakes do, so shapes, dtypes, devices and choices are those of a real run, and so are two mistakes that only
a GPU would show: tensors made on the CPU, and values read back to it.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..layers import LowBitWeight
from ..ops import OPS
from ..ops.registry import NAMESPACE

CPU, CUDA = 0, 1  # of c10::DeviceType
GUARDS = "_ZN3c104impl26device_guard_impl_registryE"


@contextlib.contextmanager
def pretended_gpu(capability: tuple[int, int]) -> Iterator[None]:
    """Tensors made inside have no memory; a GPU of this capability is what they are on when they ask for `cuda`.

    One context for all that belongs together: tensors of two do not meet.
    """
    register_guard()
    answers = {
        "torch.cuda.get_device_capability": lambda device=None: capability,
        "torch.cuda.current_device": lambda: 0,
        # What data decide when layers are prepared, and tensors without memory do not say.
        "halfbyte.layers.fold.merges_branch": lambda *weight: False,
        "torch.equal": lambda first, second: first.shape == second.shape,
    }
    with contextlib.ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch(name, answer))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield


def register_guard() -> None:
    """PyTorch without CUDA has no guard of its current device, and indexing asks for one: the CPU's, which does nothing, serves.

    It gives the wrong answer to `.to("cuda")`, which asks it for an index: `.to("cuda:0")`.
    """
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib/libc10.so"))
    guards = (ctypes.c_void_p * (CUDA + 1)).in_dll(library, GUARDS)
    guards[CUDA] = guards[CUDA] or guards[CPU]


def moved(model: nn.Module) -> nn.Module:
    """The model with every parameter and buffer replaced by one on the pretended GPU; what was shared stays shared. In place."""
    twins: dict[int, tuple[Tensor, Tensor]] = {}

    def twin(tensor: Tensor) -> Tensor:
        if id(tensor) not in twins:
            twins[id(tensor)] = tensor, torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")
        return twins[id(tensor)][1]

    for module in model.modules():
        for name, parameter in module._parameters.items():
            if isinstance(parameter, LowBitWeight):
                found = {stored: twin(tensor) for stored, tensor in parameter.storage.items()}
                side = tuple(term.map(twin) for term in parameter.side)
                module._parameters[name] = nn.Parameter(parameter.replaced(found, parameter.dtype, side), requires_grad=False)
            elif parameter is not None:
                module._parameters[name] = nn.Parameter(twin(parameter), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = twin(buffer)
    return model


class Watch(TorchDispatchMode):
    """chosen: (op, backend) -> calls; on_cpu: operations whose results lie on the CPU, with their shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen: Counter[tuple[str, str]] = Counter()
        self.on_cpu: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func.namespace == NAMESPACE:
            op = OPS[func._schema.name.partition("::")[2]]
            self.chosen[op.name, op.choose(*args)] += 1
        outputs = func(*args, **(kwargs or {}))
        self.on_cpu += [
            f"{func} {list(leaf.shape)}" for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.device.type == "cpu"
        ]
        return outputs
