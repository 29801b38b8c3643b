"""How often the threads of each call touch memory: work done twice gives the same result, only slower.

`python -m halfbyte.testing.kernel_calls` writes the table anew; read the difference before you keep it.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from types import ModuleType

from .call import Call

TABLE = Path(__file__).with_suffix(".toml")


def accesses_of(kernels: ModuleType, call: Call) -> list[int]:
    """Global and shared accesses of the call."""
    kernels.take_work()
    call.run(kernels)
    return list(kernels.take_work()[2:])


@cache
def table() -> dict[str, list[int]]:
    """Id of a call -> its global and shared accesses."""
    return tomllib.loads(TABLE.read_text())


def reason_against_work(call: Call, work: tuple[int, ...]) -> str | None:
    """work: what take_work gave after the call. One sentence, or None; calls that the table does not list may do any work."""
    wanted = table().get(call.id)
    if wanted is None or list(work[2:]) == wanted:
        return None
    return f"{wanted} global and shared accesses needed, got {list(work[2:])}"
