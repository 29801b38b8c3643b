"""Ways of running one workload, measured side by side: interleaved, same seeds, same threads."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..measure import frechet_distance, psnr, ssim
from .clock import CallTime, timed_call
from .judge import Judge


@dataclass(frozen=True)
class Contender:
    """One way of running: a pipeline, its call, what its denoiser stores and prepares in bytes, which numerics it computes in."""

    name: str
    pipe: Any
    call: Callable[[], Mapping[str, Any]]
    numerics: str
    stored_bytes: int
    prepared_bytes: int


@dataclass(frozen=True)
class Row:
    """seconds: medians per image; psnr in dB and ssim against the first row, mean over images; fid against real images."""

    name: str
    numerics: str
    seconds: float
    denoising_seconds: float
    stored_bytes: int
    prepared_bytes: int
    psnr: float
    ssim: float
    fid: float | None
    accuracy: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no infinity: the PSNR of the reference with itself is null."""
        return asdict(self) | {"psnr": self.psnr if math.isfinite(self.psnr) else None}


@dataclass
class Samples:
    """Images, float [B, 3, H, W] in 0..1, and every time taken of one contender."""

    images: Tensor = field(default_factory=lambda: torch.empty(0))
    times: list[CallTime] = field(default_factory=list)

    def seconds(self, part: str) -> float:
        return statistics.median(getattr(time, part) for time in self.times) / len(self.images)


def run_interleaved(contenders: Sequence[Contender], repeats: int, tick: Callable[[str], None] = lambda name: None) -> dict[str, Samples]:
    """Call every contender in turn: one warm-up round, then `repeats` timed ones, the order turning around every round."""
    samples = {contender.name: Samples() for contender in contenders}
    for round_index in range(repeats + 1):
        for contender in contenders if round_index % 2 == 0 else reversed(contenders):
            tick(contender.name)
            output, time = timed_call(contender.pipe, contender.call())
            samples[contender.name].images = as_images(output)
            if round_index:
                samples[contender.name].times.append(time)
    return samples


def as_images(output: Any) -> Tensor:
    """The images of a pipeline output made with output_type="np", float [B, 3, H, W]."""
    return torch.as_tensor(output.images).permute(0, 3, 1, 2).float()


def judge_rows(contenders: Sequence[Contender], samples: Mapping[str, Samples], judge: Judge, labels: Tensor) -> list[Row]:
    """One Row per contender; the first one is what fidelity is measured against."""
    reference = samples[contenders[0].name].images
    rows = []
    for contender in contenders:
        sample = samples[contender.name]
        judged = judge(sample.images)
        rows.append(
            Row(
                name=contender.name,
                numerics=contender.numerics,
                seconds=sample.seconds("total"),
                denoising_seconds=sample.seconds("denoising"),
                stored_bytes=contender.stored_bytes,
                prepared_bytes=contender.prepared_bytes,
                psnr=float(psnr(sample.images, reference).mean()),
                ssim=float(ssim(sample.images, reference).mean()),
                fid=None if judge.real_features is None else frechet_distance(judged.features, judge.real_features),
                accuracy=float((judged.predicted == labels).float().mean()),
            )
        )
    return rows
