"""Outputs of layers that see nothing but the timestep and the label, kept between runs and handed out again, bit for bit.

An entry of an earlier run is used only after one of its fellows was computed again in this run and came out the same, so weights
that changed in between (adapters, another dtype, another numerics) are noticed however they changed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from .run import Run
from .same import Remembered

MAX_BYTES = 64 * 2**20


@dataclass
class Entry:
    """kept: the output. size: its bytes. epoch: the run whose weights it is known to agree with; also the last that used it."""

    kept: Remembered
    size: int
    epoch: int


class Table:
    """Entries by (layer, key), at most `max_bytes` of tensors; those of the run in progress are never pushed out."""

    def __init__(self, max_bytes: int = MAX_BYTES):
        self.max_bytes, self.bytes = max_bytes, 0
        self._entries: OrderedDict[tuple[str, Hashable], Entry] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def value(self, run: Run, layer: str, key: Hashable, compute: Callable[[], Any]) -> Any:
        """The layer's output for this key, computed when it is not there or not known to agree with this run's weights."""
        place = (layer, key)
        with self._lock:
            entry = self._entries.get(place)
            if entry is not None and self._is_trusted(entry, run, layer) and entry.kept.intact:
                entry.epoch = run.number
                self._entries.move_to_end(place)
                run.stats.tabulated += 1
                return entry.kept.value
        output = compute()
        with self._lock:
            if entry is not None and entry.kept.equals(output):
                run.trusted_epochs.add((layer, entry.epoch))
            self._keep(place, output, run.number)
        return output

    @staticmethod
    def _is_trusted(entry: Entry, run: Run, layer: str) -> bool:
        return entry.epoch == run.number or (layer, entry.epoch) in run.trusted_epochs

    def _keep(self, place: tuple[str, Hashable], output: Any, epoch: int) -> None:
        self._drop(place)
        kept = Remembered(output, copies=False)
        size = sum(tensor.numel() * tensor.element_size() for tensor in kept.tensors)
        while self._entries and self.bytes + size > self.max_bytes:
            oldest = next(iter(self._entries))
            if self._entries[oldest].epoch == epoch:
                # a run that cycles through more than fits would otherwise push out each entry just before it is needed
                return
            self._drop(oldest)
        if size <= self.max_bytes:
            self._entries[place] = Entry(kept, size, epoch)
            self.bytes += size

    def _drop(self, place: tuple[str, Hashable]) -> None:
        if (entry := self._entries.pop(place, None)) is not None:
            self.bytes -= entry.size
