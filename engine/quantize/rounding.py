"""Weight scales and rounding: the grid a weight may take, the nearest point of it, and the tensors that store such points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..formats import LayerFormat, fp8, int4, int8, nvfp4, pack_nibbles


@dataclass(frozen=True)
class WeightGrid:
    """Fixed scales of the weights of one input group, stacked along the output.

    scales: per layer [N, K/group] in the stored type; outer_scales: per layer float32 scalar (1 where the format has none);
    group_step: float32 [sum of N, K/group], the value of code 1 in each group; columns: K.
    """

    layer_format: LayerFormat
    scales: tuple[Tensor, ...]
    outer_scales: tuple[Tensor, ...]
    group_step: Tensor
    columns: int

    @classmethod
    def fit(cls, weight: Tensor, sizes: Sequence[int], layer_format: LayerFormat, dtype: torch.dtype) -> WeightGrid:
        """The scales that round-to-nearest gives each layer. weight: float32 [sum of sizes, K]; dtype: of int4 scales."""
        scales, outer_scales = [], []
        for part in weight.split(list(sizes)):
            outer_scale = torch.ones((), device=weight.device)
            if layer_format.weight == "int4":
                scale = int4.group_scales(part, scale_dtype=dtype)
            elif layer_format.weight == "nvfp4":
                outer_scale = nvfp4.outer_scale_of(part, layer_format.four_over_six)
                scale = nvfp4.block_scales(part, outer_scale, layer_format.four_over_six)
            else:
                scale = {"int8": int8, "fp8": fp8}[layer_format.weight].quantize(part)[1]
            scales.append(scale)
            outer_scales.append(outer_scale)
        group_step = torch.cat([scale.float() * outer for scale, outer in zip(scales, outer_scales, strict=True)])
        return cls(layer_format, tuple(scales), tuple(outer_scales), group_step, weight.shape[1])

    def column_step(self) -> Tensor:
        """The value of code 1 for each weight: float32 [sum of N, K]."""
        return self.group_step.repeat_interleave(self.columns // self.group_step.shape[1], dim=1)

    def nearest(self, weight: Tensor) -> Tensor:
        """The nearest grid points as float32 [sum of N, K]."""
        step = self.group_step.unsqueeze(2)
        return self.points(self._groups(weight) / step).mul_(step).flatten(1)

    def points(self, ratio: Tensor) -> Tensor:
        """The nearest grid points in units of the step, float32; may overwrite ratio [...]."""
        if self.layer_format.weight == "int4":
            return ratio.round_().clamp_(-int4.HIGHEST, int4.HIGHEST)
        if self.layer_format.weight == "nvfp4":
            return nvfp4.e2m1_round(ratio)
        return ratio.round_().clamp_(-127, 127) if self.layer_format.weight == "int8" else fp8.to_e4m3(ratio).float()

    def _groups(self, weight: Tensor) -> Tensor:
        return weight.unflatten(1, (self.group_step.shape[1], -1))

    def _codes(self, values: Tensor) -> Tensor:
        """As the formats store them before packing."""
        ratio = (self._groups(values) / self.group_step.unsqueeze(2)).flatten(1)
        if self.layer_format.weight == "nvfp4":
            return nvfp4.e2m1_encode(ratio)
        return fp8.to_e4m3(ratio) if self.layer_format.weight == "fp8" else self.points(ratio).to(torch.int8)

    def store(self, values: Tensor) -> list[dict[str, Tensor]]:
        """qweight, wscales (and wtscale) per layer for values that lie on the grid; float32 [sum of N, K]."""
        codes = self._codes(values).split([scale.shape[0] for scale in self.scales])
        storages = []
        for part, scale, outer_scale in zip(codes, self.scales, self.outer_scales, strict=True):
            if self.layer_format.weight in ("int4", "nvfp4"):
                storage = {"qweight": pack_nibbles(part), "wscales": scale.t().contiguous()}
            else:
                storage = {"qweight": part.contiguous(), "wscales": scale.squeeze(-1)}
            storages.append(storage | ({"wtscale": outer_scale.reshape(1)} if self.layer_format.weight == "nvfp4" else {}))
        return storages


def round_nearest(weight: Tensor, sizes: Sequence[int], layer_format: LayerFormat, dtype: torch.dtype) -> Tensor:
    """The weight rounded to nearest with scales fitted to it, as float32 [sum of sizes, K]."""
    return WeightGrid.fit(weight, sizes, layer_format, dtype).nearest(weight)
