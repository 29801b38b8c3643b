"""What PyTorch's operations do to a low-bit weight: moves and copies keep it, updates go beside it, the rest dequantizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from .sharing import convert_shared
from .storage import COMPUTE_DTYPES, is_companion, stored_dtype

if TYPE_CHECKING:
    from .weight import LowBitWeight

aten = torch.ops.aten
Handler = Callable[[type, Any, tuple, dict[str, Any]], Any]
HANDLERS: dict[Any, Handler] = {}


def handles(*ops: Any) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(ops, handler))
        return handler

    return register


def run_dequantized(cls: type, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Run the op on float weights of the compute dtype; raises NotImplementedError for one that would write into a weight."""
    for argument, value in zip(func._schema.arguments, args, strict=False):
        if isinstance(value, cls) and argument.alias_info is not None and argument.alias_info.is_write:
            raise NotImplementedError(f"weight: only add_, sub_, copy_ and setting .data can change a low-bit weight, got {func}")
    args, kwargs = pytree.tree_map_only(cls, lambda weight: weight.dequantize().to(weight.dtype), (args, kwargs))
    return func(*args, **kwargs)


def mapped(
    weight: LowBitWeight, key: tuple, function: Callable[[str, Tensor], Tensor], dtype: torch.dtype | None = None
) -> LowBitWeight:
    """An independent weight whose tensors went through `function(name, tensor)`; a shared proj_down goes through it once."""
    tensors = {name: function(name, tensor) for name, tensor in weight.storage.items() if name != "proj_down"}
    if weight.proj_down is not None:
        tensors["proj_down"] = convert_shared(weight.proj_down, key, lambda down: function("proj_down", down))
    side = tuple(term.map(lambda factor: function("side", factor)) for term in weight.side)
    return weight.replaced(tensors, dtype or weight.dtype, side)


@handles(aten.detach.default, aten.alias.default)
def alias(cls: type, func: Any, args: tuple, kwargs: dict[str, Any]) -> LowBitWeight:
    return args[0].alias()


@handles(aten.clone.default)
def clone(cls: type, func: Any, args: tuple, kwargs: dict[str, Any]) -> LowBitWeight:
    # A shared proj_down stays shared: stored tensors are never written to.
    return mapped(args[0], ("clone",), lambda name, tensor: tensor if name == "proj_down" else tensor.clone())


@handles(aten._to_copy.default)
def to_copy(cls: type, func: Any, args: tuple, kwargs: dict[str, Any]) -> LowBitWeight:
    """Another device moves every tensor; another dtype is computed in, and converts only the 16-bit companions."""
    weight = args[0]
    dtype = kwargs.get("dtype") or weight.dtype
    if dtype not in COMPUTE_DTYPES:
        raise ValueError(f"dtype: float16, bfloat16, float32 or float64 needed to compute in, got {dtype}")
    move = {name: kwargs[name] for name in ("device", "pin_memory", "non_blocking") if kwargs.get(name) is not None}

    def convert(name: str, tensor: Tensor) -> Tensor:
        kept = not is_companion(name, weight.layer_format)
        return func(tensor, dtype=tensor.dtype if kept else stored_dtype(tensor, dtype), **move)

    return mapped(weight, (dtype, *move.items()), convert, dtype)


@handles(aten._pin_memory.default, aten.empty_like.default)
def same_op_on_each(cls: type, func: Any, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    if kwargs.get("dtype") not in (None, args[0].dtype):
        return run_dequantized(cls, func, args, kwargs)
    options = {name: value for name, value in kwargs.items() if name not in ("dtype", "memory_format")}
    return mapped(args[0], (func, *options.items()), lambda name, tensor: func(tensor, *args[1:], **options))


@handles(aten.is_pinned.default)
def is_pinned(cls: type, func: Any, args: tuple, kwargs: dict[str, Any]) -> bool:
    return all(tensor.is_pinned() for tensor in args[0].storage.values())


@handles(aten.record_stream.default)
def record_stream(cls: type, func: Any, args: tuple, kwargs: dict[str, Any]) -> None:
    for tensor in args[0].storage.values():
        func(tensor, *args[1:])


@handles(aten.add_.Tensor, aten.add_.Scalar, aten.sub_.Tensor, aten.sub_.Scalar)
def update(cls: type, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    target, delta = args[:2]
    if not isinstance(target, cls):
        return run_dequantized(cls, func, args, kwargs)
    sign = 1 if func in (aten.add_.Tensor, aten.add_.Scalar) else -1
    target.add_update(delta, sign * kwargs.get("alpha", 1))
    return target


@handles(aten.copy_.default)
def copy(cls: type, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    target, source = args[:2]
    if not isinstance(target, cls):
        return run_dequantized(cls, func, args, kwargs)
    if isinstance(source, cls):
        source = to_copy(cls, aten._to_copy.default, (source,), {"dtype": target.dtype, "device": target.device})
    target.assign(source)
    return target
