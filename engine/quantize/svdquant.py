"""SVDQuant for the layers of one input group: smooth, split off a low-rank branch, round what is left.

Source: arXiv 2411.05007. Without samples the factor is 1, the branch is fitted to the weight itself and rounding is to nearest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..formats import LayerFormat, companion_dtype
from . import low_rank, smooth
from .activation import fake_quantize_input
from .attention_error import AttentionError
from .calibrate import Samples
from .gptq import gptq
from .low_rank import LowRank
from .recipe import Recipe
from .reservoir import seed_of
from .rounding import WeightGrid, round_nearest
from .rows import weight_matrix
from .subspace import Sum

# Rows that score a candidate: enough to rank smoothing factors and to see a branch stop improving.
SCORE_ROWS = 1024


@dataclass(frozen=True)
class QuantizedGroup:
    """storages: per layer, the tensors of `LayerFormat.tensors`; only the proj_down of a group is one object in all of them.

    sqnr: output signal to error on held-out rows in dB, None without samples. note: what was chosen, as half a sentence.
    """

    storages: list[dict[str, Tensor]]
    sqnr: float | None
    note: str


def quantize_group(
    name: str,
    layers: Sequence[nn.Linear | nn.Conv2d],
    layer_format: LayerFormat,
    recipe: Recipe,
    samples: Samples | None = None,
    attention: nn.Module | None = None,
) -> QuantizedGroup:
    """Fit the stored tensors of layers that read one input; the same arguments give the same bits.

    name: seeds the randomised SVD. attention: the module whose output scores the smoothing of its queries, keys and values.
    """
    with torch.no_grad():
        fit = _Fit(name, layers, layer_format, recipe, samples)
        return fit.run(attention)


class _Fit:
    def __init__(self, name, layers, layer_format: LayerFormat, recipe: Recipe, samples: Samples | None):
        self.layers, self.format, self.recipe = list(layers), layer_format, recipe
        matrices = [weight_matrix(layer) for layer in layers]
        self.weight = torch.cat(matrices)
        self.sizes = [len(matrix) for matrix in matrices]
        self.input_dtype, device = layers[0].weight.dtype, self.weight.device
        self.dtype = companion_dtype(self.input_dtype)
        self.columns = self.weight.shape[1]
        self.channels = layers[0].weight.shape[1]
        self.taps = self.columns // self.channels
        self.samples = samples
        self.basis = low_rank.start_basis(self.columns, layer_format.rank, seed_of(name), device) if layer_format.rank else None
        if samples is not None:
            self.fit_rows, self.held_out = samples.fit.to(device), samples.held_out.to(device)
            self.judge = _RowError(self, self.held_out)

    def run(self, attention: nn.Module | None) -> QuantizedGroup:
        factor, notes = self.fit_factor(attention)
        columns_factor = factor.repeat(self.taps)
        smoothed = self.weight * columns_factor
        branch = self.fit_branch(smoothed, columns_factor, notes)
        residual = branch.rest(smoothed, columns_factor)
        grid = WeightGrid.fit(residual, self.sizes, self.format, self.dtype)
        values = self.round(residual, grid, branch, columns_factor, notes)
        sqnr = None
        if self.samples is not None:
            sqnr = self.judge.sqnr(values, branch, columns_factor)
            notes.append(f"{sqnr:.1f} dB on held-out rows")
        storages = grid.store(values)
        down = branch.down.contiguous()
        for storage, up in zip(storages, branch.up.split(self.sizes), strict=True):
            if self.format.smooth:
                storage["smooth_factor"] = factor.to(self.dtype, copy=True)
            if self.format.rank:
                storage |= {"proj_down": down, "proj_up": up.clone(memory_format=torch.contiguous_format)}
        return QuantizedGroup(storages, sqnr, ", ".join(notes))

    def fit_factor(self, attention: nn.Module | None) -> tuple[Tensor, list[str]]:
        ones = torch.ones(self.channels, device=self.weight.device)
        if not self.format.smooth or self.samples is None:
            return ones, []
        act_span = smooth.span(self.fit_rows.float() + self.format.act_shift, self.channels)
        weight_span = smooth.span(self.weight, self.channels)
        rows = _RowError(self, self.fit_rows[:SCORE_ROWS])
        scored_by_attention = attention is not None and self.samples.calls
        calls = AttentionError(attention, self.layers, self.samples.calls) if scored_by_attention else None

        def score(factor: Tensor) -> float:
            columns_factor = factor.repeat(self.taps)
            smoothed = self.weight * columns_factor
            branch = self.first_branch(smoothed, columns_factor)
            rounded = round_nearest(branch.rest(smoothed, columns_factor), self.sizes, self.format, self.dtype)
            if calls is None:
                return rows(rounded, branch, columns_factor)
            return calls(self.forwards(rounded, branch, columns_factor))

        def make(a: float, b: float) -> Tensor:
            return smooth.smooth_factor(act_span, weight_span, a, b, self.format.activation, self.dtype)

        factor, (a, b) = smooth.search(make, score)
        return factor, [f"smoothing exponents {a:.2f} and {b:.2f}"]

    def first_branch(self, smoothed: Tensor, factor: Tensor) -> LowRank:
        if not self.format.rank:
            return LowRank.empty(self.columns, len(self.weight), self.weight, self.dtype)
        branch, self.basis = low_rank.decompose(Sum.of(smoothed), self.format.rank, factor, self.basis, self.dtype)
        return branch

    def fit_branch(self, smoothed: Tensor, factor: Tensor, notes: list[str]) -> LowRank:
        if not self.format.rank:
            return self.first_branch(smoothed, factor)

        def quantize(residual: Tensor) -> Tensor:
            return round_nearest(residual, self.sizes, self.format, self.dtype)

        def weight_error(_: Tensor, lost: Tensor, __: LowRank) -> float:
            # Rows first: a float32 sum over the whole weight would lose digits, a float64 one of every square costs a copy.
            return float(torch.linalg.vector_norm(lost, dim=1).double().square().sum())

        def output_error(rounded: Tensor, _: Tensor, branch: LowRank) -> float:
            return self.judge(rounded, branch, factor)

        error = weight_error if self.samples is None else output_error
        start = smoothed, self.format.rank, factor, self.basis, self.dtype
        limits = self.recipe.iterations, self.recipe.patience, self.recipe.tolerance
        found = low_rank.alternate(*start, quantize, error, *limits)
        notes.append(f"low rank from round {found.best_round} of {found.rounds}")
        return found.branch

    def round(self, residual: Tensor, grid: WeightGrid, branch: LowRank, factor: Tensor, notes: list[str]) -> Tensor:
        values = grid.nearest(residual)
        if not self.recipe.gptq or self.samples is None:
            return values
        x = fake_quantize_input(self.fit_rows, factor, self.format, self.input_dtype, self.taps)
        solved = gptq(residual, grid, x.t() @ x)
        before, after = (self.judge(candidate, branch, factor) for candidate in (values, solved))
        notes.append("GPTQ" if after <= before else "nearest, as GPTQ did worse on held-out rows")
        return solved if after <= before else values

    def forwards(self, rounded: Tensor, branch: LowRank, factor: Tensor):
        """Per layer, the function input -> output of the quantized layer; layers given one tensor quantize it once."""
        last: list = [None, None]

        def quantized(x: Tensor) -> Tensor:
            if last[0] is not x:
                last[:] = x, fake_quantize_input(x, factor, self.format, self.input_dtype)
            return last[1]

        def forward_of(layer: nn.Linear, part: Tensor, up: Tensor):
            bias = layer.bias.float() if layer.bias is not None else 0.0
            return lambda x: (quantized(x) @ part.t() + LowRank(branch.down, up).apply(x.float()) + bias).to(x.dtype)

        parts = zip(self.layers, rounded.split(self.sizes), branch.up.split(self.sizes), strict=True)
        return [forward_of(*entry) for entry in parts]


class _RowError:
    """Squared output error over rows of raw input [M, K]; the float output is computed once."""

    def __init__(self, fit: _Fit, rows: Tensor):
        self.fit, self.rows = fit, rows.float()
        self.output = self.rows @ fit.weight.t()
        self.quantized: tuple[Tensor, Tensor] | None = None

    def __call__(self, rounded: Tensor, branch: LowRank, factor: Tensor) -> float:
        if self.quantized is None or self.quantized[0] is not factor:
            fit = self.fit
            self.quantized = factor, fake_quantize_input(self.rows, factor, fit.format, fit.input_dtype, fit.taps)
        error = self.quantized[1] @ rounded.t() + branch.apply(self.rows) - self.output
        return float(error.square().sum(dtype=torch.float64))

    def sqnr(self, rounded: Tensor, branch: LowRank, factor: Tensor) -> float:
        """10 log10 of signal to error power."""
        signal = float(self.output.square().sum(dtype=torch.float64))
        return 10 * math.log10(max(signal, 1e-30) / max(self(rounded, branch, factor), 1e-30))
