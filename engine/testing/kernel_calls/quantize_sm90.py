"""What the host code of the cluster kernel of quantize_act refuses and chooses; its kernels run in the PTX interpreter alone."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from .call import Call, Choice, Refusal
from .quantize import OPERANDS, quantize_arguments

# M, K, R, clusters at a time of blocks that fill a multiprocessor and that share one -> groups, rows of each, clusters, warps,
# boxes of each, slots, bytes.
CHOICES = {
    (4096, 3072, 32, 16, 32): (128, 32, 32, 6, 2, 4, 104416),
    (4608, 3072, 32, 16, 32): (144, 32, 32, 6, 2, 4, 104416),
    (4096, 3072, 32, 16, 16): (64, 64, 16, 12, 2, 6, 230496),
    # As many groups as multiprocessors.
    (512, 3072, 32, 16, 32): (16, 32, 16, 6, 2, 4, 104416),
    (4096, 3072, 0, 16, 32): (64, 64, 32, 8, 3, 6, 107168),
    (4096, 3072, 64, 16, 32): (64, 64, 16, 12, 2, 3, 230208),
    (4096, 12288, 32, 16, 32): (256, 16, 16, 8, 3, 5, 227360),
    # No room for the next group, and for any at all.
    (4608, 15360, 32, 16, 32): (288, 16, 16, 6, 5, 5, 226128),
    (4096, 15376, 32, 16, 32): (0, 0, 0, 0, 0, 0, 0),
    (1, 16, 8, 1, 2): (1, 16, 1, 1, 1, 3, 16184),
}


def text(groups: int, rows: int, clusters: int, warps: int, boxes: int, slots: int, shared: int) -> str:
    blocks = f"{groups} groups of {rows} rows in {clusters} clusters, {warps} warps of {boxes} boxes and {slots} slots"
    return f"{blocks}, {shared} bytes of shared memory"


def sm90_quantize_calls() -> Iterator[Call]:
    for sizes, numbers in CHOICES.items():
        name = f"sm90_quantize_act tile of {sizes}"
        yield Choice(name, lambda kernels, sizes=sizes: kernels.choose_sm90_quantize_tile(*sizes), text(*numbers))
    for changes, sentence in (
        ({"dtype": 2}, "x: float16 or bfloat16 needed"),
        ({"rows": 0}, "M: a positive size needed"),
        ({"columns": 72}, "K: a multiple of 16 needed"),
        ({"padded_rows": 12}, "M of ascales: a multiple of 8 needed"),
        ({"format": 0}, "format: int8 or fp8 needed"),
        ({"format": 2}, "format: int8 or fp8 needed"),
        ({"segments": 2}, "segments: one scale for each token needed"),
        ({"shift": 0.5}, "shift: none needed"),
        ({"rank": 12}, "R: a multiple of 8 needed"),
        ({"rank": 72}, "R: at most 64 needed"),
        ({"columns": 16384, "rank": 32}, "K and R: less needed"),
        *(({name: 72}, f"{name}: an address aligned to 16") for name in OPERANDS),
        *(({name: 0}, f"{name}: a tensor needed") for name in OPERANDS if name != "smooth"),
    ):
        yield Refusal(f"sm90_quantize_act {changes}", lambda kernels, changes=changes: refuse(kernels, **changes), sentence)


def refuse(kernels: ModuleType, dtype: int = 0, **changes: int) -> None:
    fields = {"rank": 8, "format": 4} | changes
    kernels.sm90_quantize_act(quantize_arguments(kernels, **fields), dtype, 0)
