"""`halfbyte doctor`: what was found here, what is missing, and what that costs."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from .options import AsJson


def doctor(json_output: AsJson = False) -> None:
    """Say what this machine has and what its absence costs.

    Examples:

      halfbyte doctor

      halfbyte doctor --json
    """
    from ..env import machine, settings
    from ..ops import backends
    from ..ops.triton.tuned import cache_folder

    facts, tuned = machine(), cache_folder()
    if json_output:
        found = {"machine": asdict(facts), "backends": backends(), "settings": settings(), "triton_configurations": tuned}
        print(json.dumps(found, default=str))
        return
    table = Table("what", "found", "what it means", title="halfbyte doctor", title_justify="left")
    for what, found, meaning in facts.findings():
        table.add_row(what, found, meaning)
    gpus = ", ".join(sorted(path.stem for path in tuned.glob("*.json")))
    table.add_row("Triton configurations", str(tuned), f"measured for {gpus}" if gpus else "none measured: `halfbyte tune` does, on a GPU")
    present = [backend for backend, ops in backends().items() if ops]
    table.add_row("backends", ", ".join(present), "an op runs on the first of these that accepts the call")
    for name, value in settings().items():
        table.add_row(name, str(value), "environment variable")
    Console(highlight=False).print(table)
