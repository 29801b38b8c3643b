"""Writes how the calls' launches are cut and how often they touch memory, as kernels and host code do it now."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ... import _simt
from . import KERNEL_CALLS, Call, OpCall, launches, work

calls = {call.id: call for calls in KERNEL_CALLS.values() for call in calls() if isinstance(call, OpCall)}


def write(path: Path, value_of: Callable[[Any, Call], Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text("".join(f"{json.dumps(id)} = {json.dumps(value_of(_simt, call))}\n" for id, call in sorted(calls.items())))
    part.rename(path)


write(launches.TABLE, launches.launches_of)
write(work.TABLE, work.accesses_of)
