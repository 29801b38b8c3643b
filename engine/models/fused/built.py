"""The operands of a fused block, and all that they were built from, so that a change is seen before they run again."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...ops.registry import named_backend
from .match import Kind, bypassed, is_touched, reason_against_attention


class Watched:
    """A linear layer as it was when its operands were built."""

    def __init__(self, block: nn.Module, name: str, forget: Callable[[Any], None]):
        parent, _, self.leaf = name.rpartition(".")
        self.parent = block.get_submodule(parent)
        self.linear = self.parent._modules[self.leaf]
        state = self.linear.weight.state
        # Weak, so that a weight that moved to another device does not stay here too.
        self.state = weakref.ref(state, forget)
        self.codes = weakref.ref(state.storage["qweight"])
        self.numerics = state.numerics
        self.bias = self.linear.bias
        self.version = version_of(self.bias)

    def is_same(self) -> bool:
        linear = self.parent._modules[self.leaf]
        if linear is not self.linear or is_touched(linear):
            return False
        state = getattr(linear._parameters["weight"], "state", None)
        same_weight = state is not None and state is self.state() and not state.side and state.storage["qweight"] is self.codes()
        return (
            same_weight and state.numerics == self.numerics and linear.bias is self.bias and version_of(self.bias) == self.version
        )


def version_of(tensor: Tensor | None) -> int:
    return 0 if tensor is None or tensor.is_inference() else tensor._version


class Built:
    """What `kind.build` made of the block; forget: called when one of its weights is gone."""

    def __init__(self, block: nn.Module, kind: Kind, forget: Callable[[Any], None]):
        self.attention = block.attn
        self.bypassed = tuple(bypassed(block, kind).values())
        self.linears = tuple(Watched(block, name, forget) for name in kind.linears(block))
        with torch.no_grad():
            self._operands = {named_backend(): kind.build(block)}

    @property
    def operands(self) -> Callable[..., Any]:
        """For the backend that is asked for now: which ops there are in one depends on it, and nothing else does."""
        backend = named_backend()
        if backend not in self._operands:
            self._operands[backend] = next(iter(self._operands.values())).chosen_anew()
        return self._operands[backend]

    def holds(self) -> bool:
        """Whether everything is as it was."""
        if reason_against_attention(self.attention) is not None or any(map(is_touched, self.bypassed)):
            return False
        return all(linear.is_same() for linear in self.linears)
