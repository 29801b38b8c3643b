"""What the host code of the warpgroup product refuses and chooses; its kernels run in the PTX interpreter alone."""

from __future__ import annotations

from collections.abc import Iterator

from .call import Call, Choice, Refusal
from .gemm import refusals, refuse

# M, N, E4M3 codes, segments, product columns of one scale of the next layer, multiprocessors -> tiles.
WIDE, MIDDLE, NARROW = (
    f"{tile} tiles, 384 threads, {stages} stages, {shared} bytes shared"
    for tile, stages, shared in (("128x256", 4, 229440), ("128x192", 5, 229456), ("128x128", 6, 213088))
)
CHOICES = {
    (4096, 12288, False, False, 0, 132): f"{WIDE}, 132 blocks",
    (4096, 12288, True, False, 0, 132): f"{MIDDLE}, 132 blocks",
    (4096, 3072, False, False, 0, 132): f"{WIDE}, 132 blocks",
    (4096, 3072, True, False, 0, 132): f"{MIDDLE}, 132 blocks",
    # 18 tiles of 256 columns take five rounds, 24 of 192 take six.
    (4096, 4608, False, False, 0, 132): f"{MIDDLE}, 132 blocks",
    # Half as many tiles would leave most multiprocessors idle.
    (512, 3072, False, False, 0, 132): f"{NARROW}, 96 blocks",
    (512, 3072, True, False, 0, 132): f"{NARROW}, 96 blocks",
    (1, 8, False, False, 0, 132): f"{NARROW}, 2 blocks",
    (256, 256, False, False, 0, 2): f"{WIDE}, 2 blocks",
    (256, 256, False, False, 0, 4): f"{NARROW}, 4 blocks",
    (257, 256, False, False, 0, 4): f"{WIDE}, 4 blocks",
    (257, 192, False, False, 0, 4): f"{MIDDLE}, 4 blocks",
    (256, 193, True, False, 0, 4): f"{NARROW}, 4 blocks",
    # A second accumulator, then scales of the next layer in one tile.
    (4096, 12288, False, True, 0, 132): f"{MIDDLE}, 132 blocks",
    (4096, 12288, False, False, 256, 132): f"{WIDE}, 132 blocks",
    (4096, 12288, False, True, 128, 132): f"{NARROW}, 132 blocks",
    (4096, 12288, True, False, 64, 132): f"{NARROW}, 132 blocks",
    (512, 3072, False, False, 128, 132): f"{NARROW}, 96 blocks",
    (512, 3072, False, False, 256, 132): f"{WIDE}, 48 blocks",
    # The last multiprocessor has no other to share a cluster with.
    (4096, 4096, False, False, 0, 131): f"{WIDE}, 130 blocks",
}  # fmt: skip


def sm90_gemm_w8a8_calls() -> Iterator[Call]:
    op = "sm90_gemm_w8a8"
    yield from refusals(op, (False,))
    for changes, sentence in (
        ({"segment_bytes": 0}, "columns of a segment: a positive size needed"),
        ({"segment_bytes": 48}, "K: a multiple of 48 needed"),
        ({"segment_bytes": 32}, "columns of a segment: a multiple of 128 needed"),
        ({"row_bytes": 256, "segment_bytes": 128, "next_scale_columns": 256, "next_columns": 256},
         "columns of a segment of the next layer: at most 128 needed"),
    ):  # fmt: skip
        yield Refusal(f"{op}: {sentence}", lambda kernels, changes=changes: refuse(kernels, op, (False,), **changes), sentence)
    wide = {"next_scale_columns": 128, "next_columns": 128, "glu": 1}
    sentence = "columns of a segment of the next layer: at most 64 needed"
    yield Refusal(f"{op}, E4M3: {sentence}", lambda kernels: refuse(kernels, op, (True,), **wide), sentence)
    for sizes, text in CHOICES.items():
        yield Choice(f"{op} tile of {sizes}", lambda kernels, sizes=sizes: kernels.choose_sm90_gemm_w8a8_tile(*sizes), text)
