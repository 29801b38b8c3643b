"""Compile each block's own forward, so that hooks, and the choice of fused ops, stay outside the graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..models.blocks import find_stacks
from ..models.fused import FusedForward


def compile_blocks(model: nn.Module, **options: Any) -> Callable[[], None]:
    """torch.compile the forward of every block of `find_stacks`, underneath any hook it has; returns a function that undoes it.

    options: passed to torch.compile. Raises ValueError when hooks sit inside a block, where they would break its graph.
    """
    undo: list[Callable[[], None]] = []
    blocks = [block for stack in find_stacks(model) for block in stack.blocks]
    for block in blocks:
        inner = [
            name
            for name, module in block.named_modules()
            if name and getattr(getattr(module, "_diffusers_hook", None), "hooks", None)
        ]
        if inner:
            raise ValueError(
                f"{type(block).__name__} needs no hooks inside it to be compiled; {inner[0]} has one: compile first, then attach"
            )
    for block in blocks:
        undo.append(_compile(block, options))

    def restore() -> None:
        while undo:
            undo.pop()()

    return restore


def _compile(block: nn.Module, options: dict[str, Any]) -> Callable[[], None]:
    hooks = getattr(getattr(block, "_diffusers_hook", None), "hooks", {})
    if hooks:
        reference = next(iter(hooks.values())).fn_ref
        name = "forward" if reference.original_forward is None else "original_forward"
        original = getattr(reference, name)
        if isinstance(original, FusedForward):
            return _compile_fused(original, options)
        setattr(reference, name, torch.compile(original, **options))
        return lambda: setattr(reference, name, original)
    original = vars(block).get("forward")
    if isinstance(original, FusedForward):
        return _compile_fused(original, options)
    block.forward = torch.compile(block.forward, **options)

    def restore() -> None:
        if original is None:
            del block.forward
        else:
            block.forward = original

    return restore


def _compile_fused(forward: FusedForward, options: dict[str, Any]) -> Callable[[], None]:
    forward.compile(**options)
    return forward.undo_compile
