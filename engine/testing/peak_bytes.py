"""The bytes that PyTorch operations hold at once, counted on any device, meta included."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakBytes(TorchDispatchMode):
    """`with PeakBytes() as peak: ...` then `peak.bytes`: the most that tensors made inside the block took at one time.

    Tensors from before the block count nothing. Of the project's own ops the outputs count, not what they allocate inside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.live: dict[int, SizedWeakRef] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        given = {storage.cdata for storage in storages((args, kwargs))}
        outputs = func(*args, **(kwargs or {}))
        self.live = {key: storage for key, storage in self.live.items() if not storage.expired()}
        # A view's storage, or that of an in-place result, came in with an argument.
        for storage in storages(outputs):
            if storage.cdata not in given:
                self.live[storage.cdata] = storage
        self.bytes = max(self.bytes, sum(storage.size for storage in self.live.values()))
        return outputs


class SizedWeakRef(StorageWeakRef):
    def __init__(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        super().__init__(storage)
        self.size = storage.nbytes()


def storages(values: Any) -> list[SizedWeakRef]:
    return [SizedWeakRef(leaf) for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
