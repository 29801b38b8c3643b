"""Putting fused forwards on the blocks of a model, and taking them off again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ..blocks import find_stacks
from .forward import FusedForward
from .match import is_touched, match


@dataclass(frozen=True)
class FusedBlocks:
    """forwards: block name -> its forward."""

    forwards: Mapping[str, FusedForward]

    @property
    def reasons(self) -> dict[str, str | None]:
        """Block name -> why it runs unfused now, None where it runs fused."""
        return {name: forward.reason() for name, forward in self.forwards.items()}

    def undo(self) -> None:
        """Leave every block as it was found; one that something was wrapped around since keeps a forward that passes through."""
        for forward in self.forwards.values():
            forward.enabled = False
            forward.release()
            if vars(forward.block).get("forward") is forward:
                del forward.block.forward


def fuse_blocks(model: nn.Module) -> FusedBlocks:
    """Give every block of a known structure a forward that runs on fused ops when all its linear layers run low-bit kernels.

    Whether it does is decided at each call, so that it follows adapters, hooks, moves to other devices and unusual arguments.
    Blocks whose forward something else replaced already are left alone.
    """
    forwards = {}
    for stack in find_stacks(model):
        for name, block in stack.named_blocks():
            if is_touched(block) or (kind := match(block)) is None:
                continue
            block.forward = forwards[name] = FusedForward(block, kind)
    return FusedBlocks(forwards)
