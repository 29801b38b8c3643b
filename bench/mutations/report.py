"""What survived, per rule and one by one."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mutants import Mutant

EXPLAINED = Path(__file__).parent / "explained.toml"
CAUGHT = ("fault", "wrong", "schedule", "refused", "crash", "hang")


def explanations() -> list[dict[str, Any]]:
    return tomllib.loads(EXPLAINED.read_text()).get("mutants", [])


def explains(entry: dict[str, Any], mutant: Mutant) -> bool:
    return (
        entry.get("file", mutant.file) == mutant.file
        and mutant.rule in entry.get("rules", [mutant.rule])
        and entry["line"] in mutant.before
        and entry.get("becomes", "") in mutant.after
    )


def outcome(mutant: Mutant, result: dict[str, str]) -> str:
    """caught, invalid (does not compile), explained or survived."""
    if result["by"] in CAUGHT:
        return "caught"
    if result["by"] == "compiler":
        return "caught" if "static assertion" in result["what"] else "invalid"
    return "explained" if any(explains(entry, mutant) for entry in explanations()) else "survived"


def summary(mutants: list[Mutant], results: dict[str, dict[str, str]]) -> dict[str, Any]:
    counts = Counter((m.rule, outcome(m, results[m.id])) for m in mutants)
    total = Counter(kind for _, kind in counts.elements())
    tried = total["caught"] + total["explained"] + total["survived"]
    found_by = Counter(results[m.id]["by"] for m in mutants if outcome(m, results[m.id]) == "caught")
    return {
        "tried": tried,
        "caught_percent": round(100 * total["caught"] / max(tried, 1), 2),
        "outcomes": dict(total),
        "caught_by": dict(found_by),
        "rules": {rule: {kind: counts[rule, kind] for r, kind in counts if r == rule} for rule in sorted({r for r, _ in counts})},
    }


def show(console: Console, mutants: list[Mutant], results: dict[str, dict[str, str]], unchanged: set[str]) -> None:
    """unchanged: the bits that the kernels give without a mutant."""
    numbers = summary(mutants, results)
    table = Table("rule", *(f"[bold]{kind}" for kind in ("caught", "explained", "survived", "invalid")), title="mutants per rule")
    for rule, kinds in numbers["rules"].items():
        table.add_row(rule, *(str(kinds.get(kind, 0)) for kind in ("caught", "explained", "survived", "invalid")))
    console.print(table)
    for mutant in mutants:
        if (kind := outcome(mutant, results[mutant.id])) in ("survived", "explained"):
            same = "same bits" if set(results[mutant.id]["bits"].split()) <= unchanged else "other bits, within the limits"
            console.print(f"[bold]{kind}[/] {mutant.id} ({same})", highlight=False)
            console.print(f"  - {mutant.before}\n  + {mutant.after}", markup=False, highlight=False)
            for entry in explanations() if kind == "explained" else ():
                if explains(entry, mutant):
                    console.print(f"  {entry['reason']}", style="dim", markup=False, highlight=False)
                    break
    console.print(
        f"{numbers['caught_percent']} % of {numbers['tried']} mutants caught ("
        + ", ".join(f"{by} {count}" for by, count in sorted(numbers["caught_by"].items()))
        + f"); {numbers['outcomes'].get('explained', 0)} explained, {numbers['outcomes'].get('survived', 0)} survived, "
        f"{numbers['outcomes'].get('invalid', 0)} do not compile",
        highlight=False,
    )


def write(path: Path, mutants: list[Mutant], results: dict[str, dict[str, str]]) -> None:
    rows = [
        {"id": m.id, "outcome": outcome(m, results[m.id]), "before": m.before, "after": m.after, **results[m.id]} for m in mutants
    ]
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"summary": summary(mutants, results), "mutants": rows}, indent=1))
    part.rename(path)
