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
    """A linear layer as it was when operands were built from it; forget: called when what they were built from is gone."""

    def __init__(self, block: nn.Module, name: str, forget: Callable[[Any], None]):
        parent, _, self.leaf = name.rpartition(".")
        self.parent = block.get_submodule(parent)
        self.linear = self.parent._modules[self.leaf]
        state = self.linear.weight.state
        # Weak, so that a weight that moves away or is prepared in another way leaves nothing here.
        self.state = weakref.ref(state, forget)
        self.codes = weakref.ref(state.storage["qweight"])
        self.form = None if state.prepared is None else weakref.ref(state.prepared, forget)
        self.bias = self.linear.bias
        self.version = version_of(self.bias)

    def is_same(self) -> bool:
        linear = self.parent._modules[self.leaf]
        if linear is not self.linear or is_touched(linear):
            return False
        if linear._parameters["bias"] is not self.bias or version_of(self.bias) != self.version:
            return False
        state = getattr(linear._parameters["weight"], "state", None)
        if state is None or state is not self.state() or state.side or state.storage["qweight"] is not self.codes():
            return False
        # A layer whose form was released may have built it again for a call of its own.
        return self.form is None or state.prepared is self.form() is not None


def version_of(tensor: Tensor | None) -> int:
    return 0 if tensor is None or tensor.is_inference() else tensor._version


class Built:
    """What `kind.build` made of the block; forget: called when one of its weights is gone."""

    def __init__(self, block: nn.Module, kind: Kind, forget: Callable[[Any], None]):
        self.attention = block.attn
        self.bypassed = tuple(bypassed(block, kind).values())
        with torch.no_grad():
            self._operands = {named_backend(): kind.build(block)}
        self.linears = tuple(Watched(block, name, forget) for name in kind.linears(block))

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
