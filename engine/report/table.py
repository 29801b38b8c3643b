"""Rows as a table for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table

from .rows import Row


def rows_table(rows: Sequence[Row], baseline: str, title: str) -> Table:
    """A rich Table; speed is relative to the row named `baseline`, fidelity to the first row."""
    reference = next(row.denoising_seconds for row in rows if row.name == baseline)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("row", no_wrap=True)
    table.add_column("numerics", no_wrap=True)
    for heading in ("s/image", "speed", "stored", "prepared", "PSNR", "SSIM", "FID", "class"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            row.numerics,
            f"{row.denoising_seconds:.3f}",
            f"{reference / row.denoising_seconds:.1f}x",
            readable_bytes(row.stored_bytes),
            readable_bytes(row.prepared_bytes),
            "same" if math.isinf(row.psnr) else f"{row.psnr:.1f}",
            f"{row.ssim:.3f}",
            "-" if row.fid is None else f"{row.fid:.2f}",
            f"{100 * row.accuracy:.0f}%",
        )
    return table


def readable_bytes(count: int) -> str:
    """Bytes as a number a person compares: 1.2 MB (10**6)."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
