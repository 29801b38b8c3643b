"""One JSON document per output folder: the machine, and what every part found, kept case by case so that a run can go on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {"engine": (".py",), "triton_kernels": (".py", ".json"), "csrc": (".cu", ".h", ".cpp", ".toml")}
NO_FIGURES = "dry run: no figures"


def source_digest() -> str:
    """Of everything that computes; results of other sources are not comparable, and a green run of theirs proves nothing here."""
    found = hashlib.sha256()
    for folder, endings in SOURCES.items():
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in endings:
                found.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return found.hexdigest()[:16]


def slug(name: str) -> str:
    return "_".join(name.lower().replace("(r)", "").replace("@", "").replace("/", " ").split())


class Record:
    """data["parts"][part]: status ("running", "done", "partial", "failed", "faulted", "refused"), source, cases (name -> values).

    failed (case -> error) and faults (candidate -> error) are of the last run, the next one tries them again; doing: the case
    and the candidate that a process is at, which a process that dies leaves behind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"parts": {}}

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.data, indent=1, default=str) + "\n")
        partial.replace(self.path)

    def part(self, name: str) -> dict[str, Any]:
        return self.data["parts"].setdefault(name, {"status": "missing", "cases": {}})

    def try_again(self, name: str) -> None:
        for kept in ("failed", "faults", "measured although"):
            self.part(name).pop(kept, None)

    def blame(self, name: str, ending: str) -> bool:
        """Put the end of a part's process on what it was doing. Returns whether that was found, so that the others can go on."""
        part = self.part(name)
        doing = part.pop("doing", {})
        if part["status"] == "faulted":
            return True
        if part["status"] != "running" or not doing:
            return False
        if "candidate" in doing:
            part["faults"][doing["candidate"]] = f"{ending} in {doing.get('case')}"
        else:
            part["failed"][doing["case"]] = ending
        return True

    def forget(self, name: str) -> None:
        self.data["parts"].pop(name, None)

    def is_done(self, name: str, source: str) -> bool:
        part = self.data["parts"].get(name, {})
        return part.get("status") == "done" and part.get("source") == source

    def reason_against_speed(self, source: str) -> str | None:
        """One sentence why no speed may be reported, or None: the conformance run must be green for this very source."""
        part = self.data["parts"].get("conformance")
        if part is None or part["status"] == "missing":
            return "no conformance run is in this record: run the part conformance first"
        if part.get("source") != source:
            return "the conformance run in this record is of another source: run the part conformance again"
        if part["status"] != "done":
            return f"the conformance run is {part['status']}: {part.get('reason', 'it did not end')}"
        return None
