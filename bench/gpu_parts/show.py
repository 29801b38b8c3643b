"""What a run found, as one short table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

RATES = ("TFLOP/s", "TB/s")
FACTS = (
    "build seconds", "cuda kernels", "tests", "failures", "quantize seconds", "prepared bytes", "peak bytes", "seconds per step",
)  # fmt: skip


def show(parts: Mapping[str, Any], names: Sequence[str], console: Console) -> None:
    """Medians, rates, and ratios to the case's own baseline; the record holds the rest."""
    table = Table("case", "what", "median", "rate", "over baseline", "of the copy", title_justify="left")
    for name in names:
        for case, found in parts.get(name, {}).get("cases", {}).items():
            for index, row in enumerate(rows(found)):
                table.add_row("" if index else f"{name}: {case}", *row)
    console.print(table)


def rows(case: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, value in case.items():
        if name in FACTS:
            yield name, f"{value:,}" if isinstance(value, int) else str(value), "", "", ""
    rate = next((unit for unit in RATES if unit in case), None)
    for unit in ("us", "s"):
        for name, median in case.get(f"median {unit}", {}).items():
            shown = f"{case[rate][name]:.2f} {rate}" if rate else ""
            speed = case.get("speed-up", {}).get(name)
            ratio = "{estimate:.2f} [{low:.2f}, {high:.2f}]".format(**speed) if speed else ""
            share = case.get("share of the measured copy", {}).get(name)
            yield name, f"{median:.4g} {unit}", shown, ratio, f"{100 * share:.0f} %" if share else ""
    for name, milliseconds in case.get("ms", {}).items():
        yield name, f"{milliseconds:.2f} ms", "", "", ""
