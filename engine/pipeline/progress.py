"""A progress bar on stderr while layers are converted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Report = Callable[[int, int, str], None]


@contextlib.contextmanager
def conversion_progress(name: str, shown: bool) -> Iterator[Report | None]:
    """Yields what `convert` reports to: (done, total, block); None when nothing is to be shown."""
    if not shown:
        yield None
        return
    columns = (TextColumn("quantizing {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total, block: bar.update(task, completed=done, total=total, description=f"{name}: {block}")
