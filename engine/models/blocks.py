"""Find the repeated blocks of a denoiser by structure: lists of equal modules with attention and linear layers inside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class BlockStack:
    """name: path of the list inside the model; blocks: the list itself, in the order the model runs it."""

    name: str
    blocks: nn.ModuleList

    def named_blocks(self) -> Iterator[tuple[str, nn.Module]]:
        for index, block in enumerate(self.blocks):
            yield f"{self.name}.{index}", block


def find_stacks(model: nn.Module) -> list[BlockStack]:
    """Every innermost list of same-class blocks that hold at least two linear layers and attention, in model order.

    A list that contains another such list (the stages of a UNet) gives way to it.
    """
    found = [
        BlockStack(name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and _is_stack(module)
    ]
    return [stack for stack in found if not any(other.name.startswith(stack.name + ".") for other in found)]


def _is_stack(blocks: nn.ModuleList) -> bool:
    if not len(blocks) or len({type(block) for block in blocks}) > 1:
        return False
    linears = (sum(isinstance(module, nn.Linear) for module in block.modules()) for block in blocks)
    return all(count >= 2 for count in linears) and any(_is_attention(module) for module in blocks.modules())


def _is_attention(module: nn.Module) -> bool:
    return "Attention" in type(module).__name__ or type(module).__name__.endswith("Attn")
