"""The forward of a block that runs on fused ops where it can, and otherwise as its class does."""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...ops.registry import named_backend
from .match import KINDS, Kind, bypassed, is_touched, reason_against_attention, reason_against_block

logger = logging.getLogger("halfbyte.models")


@functools.cache
def say_once(message: str) -> None:
    logger.info(message)


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


class FusedForward:
    """Stands in the block's own `__dict__` as its forward; a copied or loaded block builds its own operands at its first call.

    enabled: False runs the block as its class does.
    """

    def __init__(self, block: nn.Module, kind: Kind):
        self.block, self.kind, self.enabled = block, kind, True
        self.release()
        self.undo_compile()

    def release(self, _: Any = None) -> None:
        """Drop the operands; the next call that runs fused builds them again."""
        self._operands, self._watched = None, ()

    def __call__(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        image_rotary_emb: Any = None,
        joint_attention_kwargs: dict[str, Any] | None = None,
    ) -> tuple[Tensor, Tensor]:
        arguments = (hidden_states, encoder_hidden_states, temb, image_rotary_emb)
        if not self.enabled or torch.compiler.is_compiling():
            return self._own(*arguments, joint_attention_kwargs)
        reason = reason_against_call(*arguments, joint_attention_kwargs) or self.reason()
        if reason is not None:
            say_once(f"a {type(self.block).__name__} runs unfused: {reason}")
            return self._own(*arguments, joint_attention_kwargs)
        return self._run(self._operands, *arguments)

    def reason(self) -> str | None:
        """One sentence why the block cannot run fused now, or None; builds the operands where they are missing or changed."""
        if self._operands is not None and self._backend == named_backend() and reason_against_attention(self.block.attn) is None:
            if not any(map(is_touched, self._bypassed)) and all(watched.is_same() for watched in self._watched):
                return None
        self.release()
        if reason := reason_against_block(self.block, self.kind):
            return reason
        self._backend = named_backend()
        self._bypassed = tuple(bypassed(self.block, self.kind).values())
        self._watched = tuple(Watched(self.block, name, self.release) for name in self.kind.linears(self.block))
        with torch.no_grad():
            self._operands = self.kind.build(self.block)
        return None

    def compile(self, **options: Any) -> None:
        """torch.compile the block, fused and unfused; what decides between them stays outside the graphs."""
        self._run, self._compiled = torch.compile(run, **options), torch.compile(self.own_forward, **options)

    def undo_compile(self) -> None:
        self._run, self._compiled = run, None

    @property
    def own_forward(self) -> Callable[..., Any]:
        """The forward of the block's class."""
        return type(self.block).forward.__get__(self.block)

    def _own(self, *arguments: Any) -> Any:
        return (self._compiled or self.own_forward)(*arguments)

    def __getstate__(self) -> dict[str, Any]:
        return {"block": self.block, "kind": self.kind.name, "enabled": self.enabled}

    def __setstate__(self, state: dict[str, Any]) -> None:
        kind = next(kind for kind in KINDS if kind.name == state["kind"])
        self.__init__(state["block"], kind)
        self.enabled = state["enabled"]


def run(operands: Callable[..., Any], hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor, rotary: Any) -> Any:
    return operands(hidden_states, encoder_hidden_states, temb, rotary)


def reason_against_call(
    hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor, rotary: Any, joint_attention_kwargs: dict[str, Any] | None
) -> str | None:
    """One sentence why these arguments need the block's own forward, or None."""
    if joint_attention_kwargs:
        return f"it was called with {', '.join(sorted(joint_attention_kwargs))}"
    if not (isinstance(rotary, tuple) and len(rotary) == 2 and all(isinstance(t, Tensor) and t.dim() == 2 for t in rotary)):
        return "it was called without the cos and sin of rotary embeddings"
    tensors = hidden_states, encoder_hidden_states, temb
    if len({tensor.dtype for tensor in tensors}) > 1:
        return "it was called with tensors of several dtypes"
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "gradients were asked for"
    if torch.is_autocast_enabled(hidden_states.device.type):
        return "it was called under autocast"
    return None
