"""How each call's work is cut into blocks: a larger grid or another tile gives the same result, only slower.

`python -m halfbyte.testing.kernel_calls` writes the table anew; read the difference before you keep it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from .call import Call, OpCall

TABLE = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True)
class Launches:
    """wanted: one text for each launch of the call. Only its host code runs."""

    call: OpCall
    wanted: tuple[str, ...]

    @property
    def id(self) -> str:
        return f"{self.call.id}, launches"

    def run(self, kernels: ModuleType) -> str:
        return "; ".join(launches_of(kernels, self.call))

    def reason_against(self, got: str) -> str | None:
        wanted = "; ".join(self.wanted)
        return None if got == wanted else f"{wanted!r} needed, got {got!r}"


def launches_of(kernels: ModuleType, call: OpCall) -> list[str]:
    launched: list[str] = []

    def describe(symbol: str, name: str, grid: tuple[int, int, int], threads: int, shared_bytes: int, arguments: bytes) -> None:
        launched.append(f"{name}: {' x '.join(map(str, grid))} blocks, {threads} threads, {shared_bytes} bytes shared")

    kernels.set_recorder(describe)
    try:
        call.run(kernels)
    finally:
        kernels.set_recorder(None)
    return launched


@cache
def table() -> dict[str, list[str]]:
    """Id of a call -> its launches."""
    return tomllib.loads(TABLE.read_text())


def with_launches(calls: Callable[[], Iterator[Call]]) -> Callable[[], Iterator[Call]]:
    """The calls, and after each that the table lists, its launches."""

    def both() -> Iterator[Call]:
        for call in calls():
            yield call
            if call.id in table():
                yield Launches(call, tuple(table()[call.id]))

    return both
