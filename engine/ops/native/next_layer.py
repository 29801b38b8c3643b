"""Outputs of a product that quantizes for the next layer."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..operands import GROUP_SIZE
from ..quantize_act import quantize_act as op
from .operands import dense
from .quantize import FORMAT_CODE, Quantization


def scale_columns(how: Quantization, columns: int) -> int:
    """How many of the columns share one scale."""
    return GROUP_SIZE.get(how.format, columns // how.segments)


class NextLayer:
    """The fresh tensors for M rows of `columns`, made by `column_blocks` blocks, and what their kernel is told."""

    def __init__(
        self, how: Quantization, m: int, columns: int, column_blocks: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.how, self.columns = how, columns
        hidden_states = torch.empty(m, columns, dtype=dtype, device="meta")
        meta = op.fake(hidden_states, how.smooth, how.proj_down, how.format, how.shift, how.unsigned, how.segments, how.four_over_six)
        self.outputs: tuple[Tensor, Tensor, Tensor] = tuple(torch.empty_like(tensor, device=device) for tensor in meta)
        partials = torch.empty(column_blocks, m, how.rank, dtype=torch.float32, device=device)
        qx, ascales, low_rank_act = self.outputs
        self.tensors = {
            "smooth": dense(how.smooth), "proj_down": dense(how.proj_down), "next qx": qx, "next ascales": ascales,
            "partials": partials, "next low_rank_act": low_rank_act,
        }  # fmt: skip

    def arguments(self, kernels: ModuleType, addresses: list[int]) -> Any:
        """addresses: of `tensors`, in their order."""
        how = self.how
        code = FORMAT_CODE[how.format, how.unsigned or how.four_over_six]
        padded_rows = self.outputs[1].shape[1]
        sizes = padded_rows, self.columns, how.rank, scale_columns(how, self.columns)
        return kernels.NextLayerArguments(*addresses, *sizes, how.shift, code)
