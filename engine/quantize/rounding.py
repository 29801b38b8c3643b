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
    step: float32 [sum of N, K], the value of code 1 for each weight.
    """

    layer_format: LayerFormat
    scales: tuple[Tensor, ...]
    outer_scales: tuple[Tensor, ...]
    step: Tensor

    @classmethod
    def fit(cls, weight: Tensor, sizes: Sequence[int], layer_format: LayerFormat, dtype: torch.dtype) -> WeightGrid:
        """The scales that round-to-nearest gives each layer. weight: float32 [sum of sizes, K]; dtype: of int4 scales."""
        scales, outer_scales = [], []
        for part in weight.split(list(sizes)):
            outer_scale = torch.ones((), device=weight.device)
            if layer_format.weight == "int4":
                scale = int4.quantize(part, scale_dtype=dtype)[1]
            elif layer_format.weight == "nvfp4":
                _, scale, outer_scale = nvfp4.quantize(part, four_over_six=layer_format.four_over_six)
            else:
                scale = {"int8": int8, "fp8": fp8}[layer_format.weight].quantize(part)[1]
            scales.append(scale)
            outer_scales.append(outer_scale)
        groups = torch.cat([scale.float() * outer for scale, outer in zip(scales, outer_scales, strict=True)])
        step = groups.repeat_interleave(weight.shape[1] // groups.shape[1], dim=1)
        return cls(layer_format, tuple(scales), tuple(outer_scales), step)

    def codes(self, weight: Tensor, step: Tensor | None = None) -> Tensor:
        """Nearest codes of `weight` in units of `step` (the grid's own when None), as the formats store them before packing."""
        ratio = weight / (self.step if step is None else step)
        if self.layer_format.weight == "int4":
            return ratio.round().clamp(-7, 7).to(torch.int8)
        if self.layer_format.weight == "nvfp4":
            return nvfp4.e2m1_encode(ratio)
        return ratio.round().clamp(-127, 127).to(torch.int8) if self.layer_format.weight == "int8" else fp8.to_e4m3(ratio)

    def nearest(self, weight: Tensor, step: Tensor | None = None) -> Tensor:
        """The nearest grid points as float32; same shapes as `codes`."""
        codes = self.codes(weight, step)
        values = nvfp4.e2m1_decode(codes) if self.layer_format.weight == "nvfp4" else codes.float()
        return values * (self.step if step is None else step)

    def store(self, values: Tensor) -> list[dict[str, Tensor]]:
        """qweight, wscales (and wtscale) per layer for values that lie on the grid; float32 [sum of N, K]."""
        codes = self.codes(values).split([scale.shape[0] for scale in self.scales])
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
