"""The forward of a block that runs on fused ops where it can, and otherwise as its class does."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .built import Built
from .match import KINDS, Kind, reason_against_block

logger = logging.getLogger("halfbyte.models")


@functools.cache
def say_once(message: str) -> None:
    logger.info(message)


class FusedForward:
    """Stands in the block's own `__dict__` as its forward; a copied or loaded block builds its own operands at its first call.

    enabled: False runs the block as its class does.
    """

    def __init__(self, block: nn.Module, kind: Kind):
        self.block, self.kind, self.enabled = block, kind, True
        self._building = threading.Lock()
        self.release()
        self.undo_compile()

    @property
    def operands(self) -> Callable[..., Any] | None:
        """What the last fused call ran, or None."""
        return None if self._built is None else self._built.operands

    def release(self, _: Any = None) -> None:
        """Drop the operands; the next call that runs fused builds them again."""
        self._built: Built | None = None

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
        operands, reason = None, reason_against_call(*arguments, joint_attention_kwargs)
        if reason is None:
            operands, reason = self._ready()
        if operands is None:
            say_once(f"a {type(self.block).__name__} runs unfused: {reason}")
            return self._own(*arguments, joint_attention_kwargs)
        return self._run(operands, *arguments)

    def reason(self) -> str | None:
        """One sentence why the block cannot run fused now, or None; builds the operands where they are missing or changed."""
        return self._ready()[1]

    def _ready(self) -> tuple[Callable[..., Any] | None, str | None]:
        built = self._built
        if built is not None and built.holds():
            return built.operands, None
        # One thread builds while the others wait; what runs keeps the operands it started with.
        with self._building:
            built = self._built
            if built is None or not built.holds():
                self.release()
                if reason := reason_against_block(self.block, self.kind):
                    return None, reason
                self._built = built = Built(self.block, self.kind, self.release)
            return built.operands, None

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
