"""`halfbyte tune` over the shared shapes, its results beside the record."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from .context import Context, OutOfTime

COMMAND = [sys.executable, "-P", "-c", "from halfbyte.cli import main; main()", "tune"]
RESULTS = "tuned"


def run(context: Context) -> None:
    if subprocess.run([*COMMAND, "--help"], capture_output=True).returncode:
        context.absent("this version of halfbyte has no command `halfbyte tune`")
        return
    context.case("tune", lambda: {"dry run": "only `halfbyte tune --help` ran"} if context.dry else tune(context), needs=60)


def tune(context: Context) -> dict[str, Any]:
    """Raises RuntimeError with the last line of a run that failed, OutOfTime when it does not end; what it tuned is kept both ways."""
    folder = context.out / RESULTS
    environment = os.environ | {"HALFBYTE_CACHE_DIR": str(folder)}
    try:
        done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, timeout=max(context.seconds_left - 10, 1))
    except subprocess.TimeoutExpired:
        raise OutOfTime("halfbyte tune did not end in time; the shapes it finished are kept") from None
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return {"files": sorted(str(path.relative_to(context.out)) for path in folder.rglob("*") if path.is_file()), "output": done.stdout[-4000:]}
