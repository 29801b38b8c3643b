"""Ops on interpreted PTX: the host code of `halfbyte._simt` hands over its launches, which run here instead."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import ModuleType

from ...ops.native.register import implementations
from .compile import SOURCES, PtxModule
from .interpreter import launch
from .memory import Memory


class RecordedKernels:
    """The host code of the SIMT extension, with launches run on the PTX for one architecture.

    It stands where the wrappers in ops/native expect an extension module. ops: op name -> function. launched: file stem -> its
    entries that have run.
    """

    def __init__(self, simt: ModuleType, arch: str, seed: int | None) -> None:
        self._simt, self._seed = simt, seed
        self._memory = Memory([])
        self._files = [PtxModule(source, arch) for source in sorted(SOURCES.glob("*.cu"))]
        self.launched: dict[str, set[str]] = {}
        self.ops = implementations(self)

    def __getattr__(self, name: str) -> object:
        return getattr(self._simt, name)

    def register_memory(self, memory: list[tuple[str, int, int]]) -> None:
        self._memory = Memory(memory)

    def file(self, stem: str) -> PtxModule:
        """What csrc/cuda/<stem>.cu was compiled to; its text may be changed before it is run."""
        return next(file for file in self._files if file.source.stem == stem)

    def entries_of(self, stem: str) -> frozenset[str]:
        return self.file(stem).entries

    def file_of(self, symbol: str, name: str) -> PtxModule:
        """The file with this entry; those whose name ends as the kernel's are compiled first."""
        for file in sorted(self._files, key=lambda file: not file.source.stem.endswith(name)):
            if symbol in file.entries:
                return file
        raise RuntimeError(f"no file of {SOURCES.name} has the entry {symbol} ({name})")

    def run(
        self, symbol: str, name: str, grid: tuple[int, int, int], threads: int, shared_bytes: int, arguments: bytes,
    ) -> None:  # fmt: skip
        """A recorder: see csrc/simt/recorder.h."""
        file = self.file_of(symbol, name)
        label = f"{name} ({file.source.name}, compute_{file.arch})"
        launch(file.module(symbol), symbol, grid, threads, shared_bytes, arguments, self._memory, label, self._seed)
        self.launched.setdefault(file.source.stem, set()).add(symbol)


@contextlib.contextmanager
def run_on_ptx(arch: str, seed: int | None = None) -> Iterator[RecordedKernels]:
    """Kernels that run on the PTX nvcc makes for an architecture ("80", "90", "90a", "120f"), for tensors on the CPU.

    seed: draws which warps run ahead of the others, None for all together.
    Raises ImportError where `halfbyte._simt` was not built (HALFBYTE_SIMT=1) and RuntimeError where a kernel needs nvcc and there
    is none.
    """
    from ... import _simt

    kernels = RecordedKernels(_simt, arch, seed)
    _simt.set_recorder(kernels.run)
    try:
        yield kernels
    finally:
        _simt.set_recorder(None)
