"""Writes how the calls' launches are cut, as the host code cuts them now."""

from __future__ import annotations

import json

from ... import _simt
from . import KERNEL_CALLS, OpCall
from .launches import TABLE, launches_of

calls = {call.id: call for calls in KERNEL_CALLS.values() for call in calls() if isinstance(call, OpCall)}
part = TABLE.with_suffix(".part")
part.write_text("".join(f"{json.dumps(id)} = {json.dumps(launches_of(_simt, call))}\n" for id, call in sorted(calls.items())))
part.rename(TABLE)
