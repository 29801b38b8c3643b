"""What the host code of the warpgroup product refuses and chooses; its kernels run in the PTX interpreter alone."""

from __future__ import annotations

from collections.abc import Iterator

from .call import Call, Choice, Refusal
from .gemm import refusals, refuse

# M, N, E4M3 codes, multiprocessors -> tiles.
WIDE, MIDDLE, NARROW = (
    f"{tile} tiles, 384 threads, {stages} stages, {shared} bytes shared"
    for tile, stages, shared in (("128x256", 4, 231488), ("128x192", 5, 231504), ("128x128", 6, 231520))
)
CHOICES = {
    (4096, 12288, False, 132): f"{WIDE}, 132 blocks",
    (4096, 12288, True, 132): f"{MIDDLE}, 132 blocks",
    (4096, 3072, False, 132): f"{WIDE}, 132 blocks",
    (4096, 3072, True, 132): f"{MIDDLE}, 132 blocks",
    # 18 tiles of 256 columns take five rounds, 24 of 192 take six.
    (4096, 4608, False, 132): f"{MIDDLE}, 132 blocks",
    # Half as many tiles would leave most multiprocessors idle.
    (512, 3072, False, 132): f"{NARROW}, 96 blocks",
    (512, 3072, True, 132): f"{NARROW}, 96 blocks",
    (1, 8, False, 132): f"{NARROW}, 2 blocks",
    (256, 256, False, 2): f"{WIDE}, 2 blocks",
    (256, 256, False, 4): f"{NARROW}, 4 blocks",
    (257, 256, False, 4): f"{WIDE}, 4 blocks",
    (257, 192, False, 4): f"{MIDDLE}, 4 blocks",
    (256, 193, True, 4): f"{NARROW}, 4 blocks",
    # The last multiprocessor has no other to share a cluster with.
    (4096, 4096, False, 131): f"{WIDE}, 130 blocks",
}  # fmt: skip


def sm90_gemm_w8a8_calls() -> Iterator[Call]:
    op = "sm90_gemm_w8a8"
    yield from refusals(op, (False,), quantizing=False)
    for changes, sentence in (
        ({"segment_bytes": 32}, "segments: one scale for each token needed"),
        ({"next_qx": 64}, "next layer: an output that is not quantized needed"),
    ):
        yield Refusal(f"{op}: {sentence}", lambda kernels, changes=changes: refuse(kernels, op, (False,), **changes), sentence)
    for sizes, text in CHOICES.items():
        yield Choice(f"{op} tile of {sizes}", lambda kernels, sizes=sizes: kernels.choose_sm90_gemm_w8a8_tile(*sizes), text)
