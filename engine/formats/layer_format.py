"""The format of one layer: which bits its weight and activations have, and exactly which tensors are stored for it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

WEIGHT_FORMATS = ("int4", "nvfp4", "int8", "fp8")
# K must be a multiple of these: the scale group of the 4-bit formats, one 128-bit load of the 8-bit ones.
K_MULTIPLE = {"int4": 64, "nvfp4": 16, "int8": 16, "fp8": 16}
N_MULTIPLE = 8

Schema = dict[str, tuple[tuple[int, ...], torch.dtype]]


def companion_dtype(compute_dtype: torch.dtype) -> torch.dtype:
    """The 16-bit dtype that scales, smoothing and the low-rank branch are stored in: the compute dtype, or bfloat16 if that is wider."""
    return compute_dtype if compute_dtype.itemsize == 2 else torch.bfloat16


@dataclass(frozen=True)
class LayerFormat:
    """weight, activation: "int4", "nvfp4", "int8" or "fp8"; activation None computes with 16-bit activations.

    rank: of the low-rank branch. smooth: the layer has a smooth_factor. act_shift: added to the input before it is quantized,
    which is then unsigned (0.171875 after GELU, int4 only). four_over_six: nvfp4 blocks, of weights and activations, take the
    better of two scales. Sizes below are those of the module: in_features is in_channels for a convolution, whose K is
    kh*kw*in_channels in the order (kh, kw, in_channels).
    """

    weight: str
    activation: str | None
    rank: int = 0
    smooth: bool = False
    act_shift: float = 0.0
    four_over_six: bool = False

    def __post_init__(self) -> None:
        if self.weight not in WEIGHT_FORMATS:
            raise ValueError(f"weight: one of {', '.join(WEIGHT_FORMATS)} needed, got {self.weight!r}")
        allowed = (None, self.weight) if self.weight in ("int8", "fp8") else (None, self.weight, "int8", "fp8")
        if self.activation not in allowed:
            names = ", ".join(map(str, allowed))
            raise ValueError(f"activation: one of {names} needed with {self.weight} weights, got {self.activation!r}")
        if not isinstance(self.rank, int) or isinstance(self.rank, bool) or self.rank < 0:
            raise ValueError(f"rank: an integer >= 0 needed, got {self.rank!r}")
        if not isinstance(self.smooth, bool):
            raise ValueError(f"smooth: true or false needed, got {self.smooth!r}")
        if isinstance(self.act_shift, bool) or not isinstance(self.act_shift, int | float) or not 0 <= self.act_shift < math.inf:
            raise ValueError(f"act_shift: a finite number >= 0 needed, got {self.act_shift!r}")
        if self.act_shift and self.activation != "int4":
            raise ValueError(f"act_shift: only int4 activations are shifted, got {self.act_shift} with {self.activation}")
        if not isinstance(self.four_over_six, bool):
            raise ValueError(f"four_over_six: true or false needed, got {self.four_over_six!r}")
        if self.four_over_six and self.weight != "nvfp4":
            raise ValueError(f"four_over_six: only nvfp4 weights have it, got {self.weight}")

    @property
    def act_unsigned(self) -> bool:
        return self.act_shift > 0

    def reason_against(self, out_features: int, in_features: int, kernel: tuple[int, int] = (1, 1)) -> str | None:
        """One sentence why a layer of these sizes cannot have this format, or None."""
        n_name, k_name = ("out_features", "in_features") if kernel == (1, 1) else ("out_channels", "in_channels")
        multiple = K_MULTIPLE[self.weight]
        if in_features % multiple:
            what = "group_size" if self.weight in ("int4", "nvfp4") else "the alignment"
            return f"{k_name} {in_features} is not a multiple of {what} {multiple}"
        if out_features % N_MULTIPLE:
            return f"{n_name} {out_features} is not a multiple of {N_MULTIPLE}"
        k = in_features * kernel[0] * kernel[1]
        if self.act_shift and kernel != (1, 1):
            return f"act_shift {self.act_shift} would not reach the zero padding of a {kernel[0]}x{kernel[1]} convolution"
        if self.rank > min(out_features, k):
            return f"rank {self.rank} is larger than the {out_features} x {k} weight allows"
        return None

    def tensors(
        self,
        out_features: int,
        in_features: int,
        kernel: tuple[int, int] = (1, 1),
        dtype: torch.dtype = torch.bfloat16,
        owns_down: bool = True,
    ) -> Schema:
        """Name -> (shape, dtype) of every stored tensor but the bias; raises ValueError when the sizes do not fit.

        dtype: the layer computes in; int4 scales and companions are 16-bit in any case. owns_down: False for a layer that reads the proj_down of another.
        """
        if reason := self.reason_against(out_features, in_features, kernel):
            raise ValueError(reason)
        n, k = out_features, in_features * kernel[0] * kernel[1]
        dtype = companion_dtype(dtype)
        tensors: Schema = {
            "int4": {"qweight": ((n, k // 2), torch.int8), "wscales": ((k // 64, n), dtype)},
            "nvfp4": {
                "qweight": ((n, k // 2), torch.int8),
                "wscales": ((k // 16, n), torch.float8_e4m3fn),
                "wtscale": ((1,), torch.float32),
            },
            "int8": {"qweight": ((n, k), torch.int8), "wscales": ((n,), torch.float32)},
            "fp8": {"qweight": ((n, k), torch.float8_e4m3fn), "wscales": ((n,), torch.float32)},
        }[self.weight]
        if self.smooth:
            tensors["smooth_factor"] = ((in_features,), dtype)
        if self.rank and owns_down:
            tensors["proj_down"] = ((k, self.rank), dtype)
        if self.rank:
            tensors["proj_up"] = ((n, self.rank), dtype)
        return tensors

    def stored_bytes(
        self,
        out_features: int,
        in_features: int,
        kernel: tuple[int, int] = (1, 1),
        dtype: torch.dtype = torch.bfloat16,
        owns_down: bool = True,
    ) -> int:
        """Bytes of `tensors(...)` with the same arguments."""
        schema = self.tensors(out_features, in_features, kernel, dtype, owns_down)
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in schema.values())

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LayerFormat:
        """The inverse of `to_dict`; raises ValueError naming an unknown or missing field."""
        names = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - names):
            raise ValueError(f"{unknown[0]}: not a field of a layer format, which has {', '.join(sorted(names))}")
        if missing := sorted({"weight", "activation"} - set(values)):
            raise ValueError(f"{missing[0]}: needed in a layer format, got only {', '.join(sorted(values)) or 'nothing'}")
        return cls(**values)
