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

    facts = machine()
    if json_output:
        print(json.dumps({"machine": asdict(facts), "backends": backends(), "settings": settings()}, default=str))
        return
    table = Table("what", "found", "what it means", title="halfbyte doctor", title_justify="left")
    for what, found, meaning in facts.findings():
        table.add_row(what, found, meaning)
    present = [backend for backend, ops in backends().items() if ops]
    table.add_row("backends", ", ".join(present), "an op runs on the first of these that accepts the call")
    for name, value in settings().items():
        table.add_row(name, str(value), "environment variable")
    Console(highlight=False).print(table)
