"""Commands that a part runs, ended in time, their whole output in the log."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from .log import Log


def run(
    command: Sequence[str], seconds: float, log: Log, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess:
    """As subprocess.run gives it, with output as text. Raises subprocess.TimeoutExpired.

    Output goes to files: a pipe stays open as long as any process that the command started hangs, and reading it would too.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        ending = "did not end in time"
        try:
            child = subprocess.run(command, stdout=output, stderr=errors, cwd=cwd, env=env, timeout=max(seconds, 1))
            ending = f"ended with {child.returncode}"
        finally:
            for file in (output, errors):
                file.seek(0)
            told, complained = output.read(), errors.read()
            log.add(f"{' '.join(map(str, command))} {ending}", f"{told}\n{complained}")
    return subprocess.CompletedProcess(command, child.returncode, told, complained)
