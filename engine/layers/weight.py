"""A low-bit weight that sits inside an untouched nn.Linear or nn.Conv2d and looks like the float weight it stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..formats import LayerFormat
from .dispatch import HANDLERS, run_dequantized
from .matrix import from_matrix, to_matrix
from .prepared import Prepared, build
from .side_branch import SideTerm, add_delta, rounding_error
from .skeleton import put_together
from .storage import check_storage, dequantize_storage, quantize_storage
from .weight_state import WeightState

DATA_SETTER = torch.Tensor.data.__set__
PREPARED = "prepared_"


def stored(name: str) -> property:
    return property(lambda weight: weight.state.storage.get(name), doc=f"The stored {name}, or None when the format has none.")


class LowBitWeight(torch.Tensor):
    """Stored tensors (`LayerFormat.tensors`) behind the shape [N, K] or [N, C, kh, kw], dtype and device of a float weight.

    The dtype is the one the layer computes in. Stored tensors are never written in place, so copies may share them; layers that
    read the same input share one proj_down, which conversions and deep copies keep shared. F.linear and F.conv2d run the prepared
    form; adding to the weight, as PEFT does to fuse an adapter, goes to a side branch; other ops see the dequantized weight. The
    layer computes y = Q(x + act_shift) Wq^T + x proj_down proj_up^T + bias with the shift taken off again, smoothing as in
    LayerFormat.
    """

    qweight = stored("qweight")
    wscales = stored("wscales")
    wtscale = stored("wtscale")
    smooth_factor = stored("smooth_factor")
    proj_down = stored("proj_down")
    proj_up = stored("proj_up")

    @staticmethod
    def __new__(
        cls,
        storage: Mapping[str, Tensor],
        layer_format: LayerFormat,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        owns_down: bool = True,
        side: tuple[SideTerm, ...] = (),
        numerics: str = "native",
        memory: str = "fast",
    ) -> LowBitWeight:
        """storage: named as in `LayerFormat.tensors`, its proj_down included even when another layer owns it (owns_down False).

        side: fused user adapters. Raises ValueError when a tensor does not have the shape or dtype that the format asks for.
        """
        check_storage(storage, layer_format, tuple(shape), dtype)
        return cls.of_state(WeightState(dict(storage), layer_format, owns_down, side, numerics, memory), shape, dtype)

    @classmethod
    def of_state(cls, state: WeightState, shape: tuple[int, ...], dtype: torch.dtype) -> LowBitWeight:
        """A weight on this very state: an alias of every other one on it."""
        device = state.storage["qweight"].device
        weight = torch.Tensor._make_wrapper_subclass(cls, tuple(shape), dtype=dtype, device=device, requires_grad=False)
        weight.state = state
        return weight

    @classmethod
    def from_float(
        cls,
        weight: Tensor,
        layer_format: LayerFormat,
        smooth_factor: Tensor | None = None,
        proj_down: Tensor | None = None,
        proj_up: Tensor | None = None,
    ) -> LowBitWeight:
        """Round a float weight to nearest; raises ValueError when its sizes do not fit the format."""
        storage = quantize_storage(weight, layer_format, smooth_factor, proj_down, proj_up)
        return cls(storage, layer_format, tuple(weight.shape), weight.dtype)

    @property
    def storage(self) -> dict[str, Tensor]:
        """The stored tensors, proj_down included even when another layer owns it."""
        return dict(self.state.storage)

    @property
    def layer_format(self) -> LayerFormat:
        return self.state.layer_format

    @property
    def owns_down(self) -> bool:
        """Whether proj_down counts as this layer's; False for layers that read another's."""
        return self.state.owns_down

    @property
    def stored_bytes(self) -> int:
        """Bytes of the stored tensors; a shared proj_down counts for its owner only."""
        return sum(tensor.nbytes for name, tensor in self.storage.items() if name != "proj_down" or self.owns_down)

    @property
    def numerics(self) -> str:
        """What the layer computes: "native" (the fastest here), or what a GPU would ("w4a4", "w4a8", "nvfp4")."""
        return self.state.numerics

    @numerics.setter
    def numerics(self, numerics: str) -> None:
        self.state.numerics = numerics
        self.state.set_prepared(None)

    @property
    def memory(self) -> str:
        """What the prepared form may keep beside the storage: "fast" (what runs fastest), or "4bit" (nothing larger than it)."""
        return self.state.memory

    @memory.setter
    def memory(self, memory: str) -> None:
        self.state.memory = memory
        self.state.set_prepared(None)

    @property
    def side(self) -> tuple[SideTerm, ...]:
        """The fused user adapters."""
        return self.state.side

    def dequantize(self) -> Tensor:
        """The float32 weight, low-rank branch and fused adapters included."""
        matrix = dequantize_storage(self.storage, self.layer_format, tuple(self.shape))
        for term in self.side:
            matrix = matrix + term.matrix
        return from_matrix(matrix, tuple(self.shape))

    def prepared(self) -> Prepared:
        """The form that runs here, built at first use and dropped when the weight moves, converts or changes."""
        if (prepared := self.state.prepared) is None:
            prepared = build(self)
            if not torch.compiler.is_compiling():
                self.state.set_prepared(prepared)
        return prepared

    def add_update(self, delta: Tensor | float, alpha: float = 1.0) -> None:
        """weight += alpha * delta, for every alias of the weight."""
        delta = torch.as_tensor(delta, device=self.device)
        delta = delta.dequantize() if isinstance(delta, LowBitWeight) else delta
        dtype = delta.dtype if delta.is_floating_point() else self.dtype
        error = max(rounding_error(dtype), rounding_error(self.dtype))
        self.state.set_side(add_delta(self.side, to_matrix((alpha * delta.float()).expand(self.shape)), error))

    def assign(self, value: Tensor) -> None:
        """Take over, for every alias, the value of a weight of the same shape; a float one is recorded as an update.

        A LowBitWeight must be on this weight's device and in its dtype.
        """
        if value.shape != self.shape:
            raise ValueError(f"weight: a value of shape {list(self.shape)} needed, got {list(value.shape)}")
        if not isinstance(value, LowBitWeight):
            self.add_update(value.to(self.device).float() - self.dequantize())
            return
        state, source = self.state, value.state
        state.storage, state.layer_format, state.owns_down = source.storage, source.layer_format, source.owns_down
        state.set_side(source.side)

    def replaced(self, tensors: Mapping[str, Tensor], dtype: torch.dtype, side: tuple[SideTerm, ...]) -> LowBitWeight:
        """An independent weight with other tensors and side terms in the same format."""
        options = self.numerics, self.memory
        return LowBitWeight(tensors, self.layer_format, tuple(self.shape), dtype, self.owns_down, side, *options)

    def alias(self) -> LowBitWeight:
        return LowBitWeight.of_state(self.state, tuple(self.shape), self.dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> LowBitWeight:
        if id(self) in memo:
            return memo[id(self)]
        # The memo keeps a proj_down that several layers share shared in the copy.
        tensors = {}
        for name, tensor in self.storage.items():
            if id(tensor) not in memo:
                memo[id(tensor)] = tensor.clone()
            tensors[name] = memo[id(tensor)]
        copied = self.replaced(tensors, self.dtype, self.side)
        memo[id(self)] = nn.Parameter(copied, requires_grad=False) if isinstance(self, nn.Parameter) else copied
        return memo[id(self)]

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        rank = f" rank {self.layer_format.rank}" if self.layer_format.rank else ""
        return f"LowBitWeight({list(self.shape)}, {self.layer_format.weight}{rank}, {self.dtype}, {self.device})"

    @property
    def side_up(self) -> Tensor | None:
        """The low-rank factors of all fused adapters side by side, [N, R]."""
        return self.state.side_up

    @property
    def side_down(self) -> Tensor | None:
        """The matching [R, K]."""
        return self.state.side_down

    @property
    def side_dense(self) -> Tensor | None:
        """The sum of the fused updates that no low rank describes, [N, K]."""
        return self.state.side_dense

    def __getattr__(self, name: str) -> Tensor:
        # The tensors of the prepared form, under the names that __tensor_flatten__ gives them.
        if name.startswith(PREPARED):
            return self.state.prepared_tensors[int(name.removeprefix(PREPARED))]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __tensor_flatten__(self) -> tuple[list[str], tuple]:
        """Compiled code gets the prepared form beside the storage, so that it does not dequantize at every call."""
        state = self.state
        side = [name for name in ("side_up", "side_down", "side_dense") if getattr(self, name) is not None]
        prepared = [f"{PREPARED}{i}" for i in range(len(state.prepared_tensors))]
        context = (state.layer_format, self.dtype, state.owns_down, state.numerics, state.memory, state.skeleton)
        return [*state.storage, *side, *prepared], context

    def _stable_hash_for_caching(self) -> str:
        # PyTorch's name: what compiled code that is cached on disk depends on, besides the tensors' shapes.
        return repr(self.__tensor_flatten__()[1])

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], context: tuple, outer_size: Any, outer_stride: Any) -> LowBitWeight:
        layer_format, dtype, owns_down, numerics, memory, skeleton = context
        pairs = [(inner.get("side_up"), inner.get("side_down")), (inner.get("side_dense"), None)]
        side = tuple(SideTerm(up, down, rounding_error(dtype)) for up, down in pairs if up is not None)
        storage = {name: tensor for name, tensor in inner.items() if not name.startswith(("side_", PREPARED))}
        count = sum(name.startswith(PREPARED) for name in inner)
        prepared = put_together(skeleton, [inner[f"{PREPARED}{i}"] for i in range(count)])
        state = WeightState(storage, layer_format, owns_down, side, numerics, memory, prepared)
        return LowBitWeight.of_state(state, outer_size, dtype)

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func is F.linear and isinstance(args[1], LowBitWeight):
            return linear(*args, **kwargs)
        if func is F.conv2d and isinstance(args[1], LowBitWeight):
            return conv2d(*args, **kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            if func == DATA_SETTER and isinstance(args[0], LowBitWeight):
                return set_data(*args)
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        return HANDLERS.get(func, run_dequantized)(cls, func, args, kwargs or {})


def linear(input: Tensor, weight: LowBitWeight, bias: Tensor | None = None) -> Tensor:
    return weight.prepared().linear(input, bias)


def conv2d(
    input: Tensor,
    weight: LowBitWeight,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    if groups != 1:
        raise ValueError(f"groups: 1 needed with a low-bit weight, got {groups}")
    return weight.prepared().conv2d(input, bias, stride, padding, dilation)


def set_data(weight: LowBitWeight, value: Tensor) -> None:
    """`weight.data = value`: the setter of torch.Tensor alone would leave the stored tensors where they were."""
    if isinstance(value, LowBitWeight):
        DATA_SETTER(weight, value)
        weight.state = value.state
    else:
        weight.assign(value)
