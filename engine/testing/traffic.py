"""What a piece of a model launches and moves: each operation's reads and writes, every tensor once, as if no cache held any."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Operation:
    """name: without its namespace; inputs and outputs: shape and element size of each tensor."""

    name: str
    inputs: tuple[tuple[torch.Size, int], ...]
    outputs: tuple[tuple[torch.Size, int], ...]

    def bytes_of(self, sizes: set[int]) -> int:
        """Of tensors with a dimension of one of these sizes."""
        there = ((shape, each) for shape, each in (*self.inputs, *self.outputs) if sizes & set(shape))
        return sum(shape.numel() * each for shape, each in there)


@dataclass
class Traffic(TorchDispatchMode):
    """A context that records what runs in it; views, which move nothing, are left out."""

    operations: list[Operation] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    @property
    def names(self) -> list[str]:
        return [operation.name for operation in self.operations]

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if not function.is_view and function.overloadpacket.__name__ not in ("_unsafe_view", "detach"):
            self.operations.append(Operation(function.overloadpacket.__name__, described(args), described(result)))
        return result


def described(tree: Any) -> tuple[tuple[torch.Size, int], ...]:
    return tuple((leaf.shape, leaf.element_size()) for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
