"""One picture: a labelled row of images per way of running."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor


def draw_rows(rows: Mapping[str, Tensor], path: Path, columns: int = 20, scale: int = 2) -> Path:
    """rows: label -> float [B, 3, H, W] in 0..1. Writes a PNG, whole or not at all."""
    font = ImageFont.load_default(size=13)
    side = next(iter(rows.values())).shape[2] * scale
    label_width = max(int(font.getlength(label)) for label in rows) + 20
    columns = min(columns, min(len(images) for images in rows.values()))
    sheet = Image.new("RGB", (label_width + columns * (side + 2), len(rows) * (side + 2)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (label, images) in enumerate(rows.items()):
        top = row * (side + 2)
        draw.text((8, top + side // 2 - 8), label, fill="black", font=font)
        for column in range(columns):
            pixels = (images[column].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
            tile = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (label_width + column * (side + 2), top))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.stem + ".partial.png")
    sheet.save(partial)
    partial.replace(path)
    return path
