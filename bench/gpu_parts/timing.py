"""Device time: CUDA events around replayed graphs, the L2 emptied before every sample, candidates in turn."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

Call = Callable[[], object]
Samples = dict[str, list[float]]
FLUSHES_L2 = 4


def l2_bytes() -> int:
    return torch.cuda.get_device_properties(0).L2_cache_size


class CapturedCall:
    """A call as a CUDA graph, so that launches cost the host nothing; `outputs` are those that every replay writes."""

    def __init__(self, call: Call) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = call()

    def __call__(self) -> object:
        self.graph.replay()
        return self.outputs


def rotated(call: Callable[[Any], object], inputs: Sequence[Any]) -> Call:
    """The call on each input in turn, results kept apart: no input and no output is in the cache when its turn comes."""
    return lambda: [call(item) for item in inputs]


def copies_beyond_l2(nbytes: int) -> int:
    return max(1, min(64, math.ceil(FLUSHES_L2 * l2_bytes() / nbytes)))


class Stopwatch:
    """Seconds on one device. On a CPU, for dry runs only, halfbyte's own wall clock."""

    def __init__(self, device: str) -> None:
        self.device = device
        if device == "cuda":
            # Read, not written: dirty lines would be written back during the next sample.
            self.cold = torch.empty(FLUSHES_L2 * l2_bytes() // 4, dtype=torch.float32, device=device).uniform_()

    def prepare(self, call: Call) -> Call:
        """The call as a graph. Raises what the call or capturing it raises."""
        if self.device == "cuda":
            return CapturedCall(call)
        call()
        return call

    def interleave(self, candidates: Mapping[str, Call], rounds: int, warmup: int = 3, flush: bool = True) -> Samples:
        """Every candidate once per round, the order turning around: name -> seconds of each round."""
        if self.device != "cuda":
            from halfbyte.measure import interleave

            return interleave(candidates, rounds, warmup=1)
        for _ in range(warmup):
            for call in candidates.values():
                call()
        samples: Samples = {name: [] for name in candidates}
        order = list(candidates)
        for _ in range(rounds):
            events = [(name, *self._events(candidates[name], flush)) for name in order]
            torch.cuda.synchronize()
            for name, start, end in events:
                samples[name].append(start.elapsed_time(end) / 1e3)
            order.reverse()
        return samples

    def _events(self, call: Call, flush: bool) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if flush:
            self.cold.sum()
        start.record()
        call()
        end.record()
        return start, end


def microseconds(samples: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Every sample and the medians, in microseconds."""
    return {
        "samples us": {name: [round(value * 1e6, 3) for value in taken] for name, taken in samples.items()},
        "median us": {name: round(statistics.median(taken) * 1e6, 3) for name, taken in samples.items()},
    }


def ratios(samples: Mapping[str, Sequence[float]], over: str, of: Sequence[str]) -> dict[str, dict[str, float]]:
    """How many times faster each of `of` is than `over`, paired by round, with 95 % intervals."""
    from halfbyte.measure import paired_ratio

    return {name: vars(paired_ratio(samples[over], samples[name])) for name in of if name in samples}


def fastest(samples: Mapping[str, Sequence[float]], names: Sequence[str]) -> str:
    return min((name for name in names if name in samples), key=lambda name: statistics.median(samples[name]))
