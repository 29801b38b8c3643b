"""Rows as a table for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table

from .rows import Row


def rows_table(rows: Sequence[Row], baseline: str, title: str) -> Table:
    """A rich Table; speed is relative to the row named `baseline`, fidelity to the first row."""
    reference = next(row.denoising_seconds for row in rows if row.name == baseline)
    table = Table(title=title, title_justify="left")
    table.add_column("row")
    table.add_column("numerics")
    for heading in ("s/image", "denoise x", "stored", "prepared", "PSNR dB", "SSIM", "FID", "accuracy"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.name,
            row.numerics,
            f"{row.seconds:.4f}",
            f"{reference / row.denoising_seconds:.2f}",
            readable_bytes(row.stored_bytes),
            readable_bytes(row.prepared_bytes),
            "same" if math.isinf(row.psnr) else f"{row.psnr:.1f}",
            f"{row.ssim:.4f}",
            "-" if row.fid is None else f"{row.fid:.1f}",
            f"{100 * row.accuracy:.1f} %",
        )
    return table


def readable_bytes(count: int) -> str:
    """Bytes as a number a person compares: 1.23 MB (10**6)."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} B"
