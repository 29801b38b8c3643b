"""What can be asked of a compiled kernel: an op's result, a refusal, or how it would cut its work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ...ops import OPS
from ...ops.native.operands import span
from ...ops.native.register import KERNELS
from ..calls import outputs_as_floats
from ..limits import LIMITS, poisoned_empty, relative_rms


class Call(Protocol):
    """id: readable. run gives what reason_against judges: None, or one sentence why it is wrong."""

    id: str

    def run(self, kernels: ModuleType) -> Any: ...

    def reason_against(self, got: Any) -> str | None: ...


def into_poison(tensor: Tensor) -> Tensor:
    """A copy of the same strides in the middle of NaNs or largest integers, which are between its rows too."""
    if not tensor.numel():
        return tensor
    elements = span(tensor) // tensor.element_size()
    with poisoned_empty():
        buffer = torch.empty(elements + 2048, dtype=tensor.dtype, device=tensor.device)
    return buffer[1024:].as_strided(tensor.shape, tensor.stride()).copy_(tensor)


@dataclass(frozen=True)
class OpCall:
    """exact: codes and scales must have the reference's bits, as nothing before them is rounded in another order."""

    op: str
    name: str
    args: tuple
    exact: bool = False

    @property
    def id(self) -> str:
        return f"{self.op} {self.name}"

    @cached_property
    def poisoned_args(self) -> tuple:
        return tree_map_only(torch.Tensor, into_poison, self.args)

    @cached_property
    def wanted(self) -> Any:
        return OPS[self.op].reference(*self.args)

    def run(self, kernels: ModuleType) -> Any:
        with poisoned_empty():
            return KERNELS[self.op].run(kernels, *self.poisoned_args)

    def reason_against(self, got: Any) -> str | None:
        if self.exact and bits_of(meaningful(*got[:2])) != bits_of(meaningful(*self.wanted[:2])):
            return "codes or scales differ from the reference's"
        wanted = outputs_as_floats(self.op, self.args, self.wanted)
        for name, (tensor, format) in outputs_as_floats(self.op, self.args, got).items():
            if (error := relative_rms(tensor, wanted[name][0])) > (limit := LIMITS[format].agreement):
                return f"{name}: relative RMS error {error:.3g} is over the {format} limit {limit:.3g}"
        return None


def meaningful(codes: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and scales as bytes, with zeros for NaN scales and for the codes that those make meaningless."""
    nan = scales.float().isnan()
    width = codes.shape[1] // scales.shape[0]
    hidden = nan[:, : codes.shape[0]].t().repeat_interleave(width, 1)
    return codes.view(torch.uint8).masked_fill(hidden, 0), scales.float().masked_fill(nan, 0)


def bits_of(outputs: Any) -> bytes:
    """Of what a call gave: tensors or a text."""
    if isinstance(outputs, str):
        return outputs.encode()
    tensors = outputs if isinstance(outputs, tuple) else (outputs,)
    return b"".join(tensor.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes() for tensor in tensors)


@dataclass(frozen=True)
class WorkCall:
    """products: how many matrix instructions the call may take, without a bank conflict of ldmatrix."""

    call: OpCall
    products: int

    @property
    def id(self) -> str:
        return f"{self.call.id}, work"

    def run(self, kernels: ModuleType) -> str:
        kernels.take_work()
        self.call.run(kernels)
        return str(kernels.take_work()[:2])

    def reason_against(self, got: str) -> str | None:
        wanted = str((self.products, 0))
        return None if got == wanted else f"{wanted} matrix instructions and bank conflicts needed, got {got}"


@dataclass(frozen=True)
class Refusal:
    """Arguments that the host code must refuse; sentence: part of what it says."""

    id: str
    act: Callable[[ModuleType], Any]
    sentence: str

    def run(self, kernels: ModuleType) -> str:
        kernels.clear_memory()
        try:
            self.act(kernels)
        except ValueError as error:
            return str(error)
        return "not refused"

    def reason_against(self, got: str) -> str | None:
        return None if self.sentence in got else f"{self.sentence!r} needed, got {got!r}"


@dataclass(frozen=True)
class Choice:
    """How the work is cut, as a text."""

    id: str
    act: Callable[[ModuleType], Any]
    wanted: str

    def run(self, kernels: ModuleType) -> str:
        return str(self.act(kernels))

    def reason_against(self, got: str) -> str | None:
        return None if got == self.wanted else f"{self.wanted!r} needed, got {got!r}"
