"""The whole text of everything that went wrong, in one file beside the record, which has room for its beginning alone."""

from __future__ import annotations

import datetime
from pathlib import Path

KEPT = 2000  # characters of an error in the record


class Log:
    """Entries are added at the end; the next run adds to those of the last."""

    def __init__(self, record: Path) -> None:
        self.path = record.with_suffix(".log")

    def add(self, title: str, text: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with self.path.open("a") as file:
            file.write(f"--- {now} {title}\n{text.rstrip()}\n\n")


def shortened(text: str) -> str:
    """Its beginning and its end, of which one says what failed and the other why."""
    text = text.strip()
    return text if len(text) <= KEPT else f"{text[: KEPT // 2]} [...] {text[-KEPT // 2 :]}"
