"""Shapes of real layers and odd sizes, shared by tests and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """M tokens, N out, K in, of a layer y [M, N] = x [M, K] @ weight [N, K]^T."""

    name: str
    m: int
    n: int
    k: int


# 1024 x 1024 pixels: FLUX.1 has 4096 image and 512 text tokens; SDXL and PixArt run both guidance branches in one batch.
# Wan 2.1: 81 frames of 832 x 480 (1.3B) and of 1280 x 720 (14B).
LAYER_SHAPES = (
    Shape("flux.qkv", 4608, 9216, 3072),
    Shape("flux.attention_out", 4096, 3072, 3072),
    Shape("flux.ff_up", 4096, 12288, 3072),
    Shape("flux.ff_down", 4096, 3072, 12288),
    Shape("flux.single_out", 4608, 3072, 15360),
    Shape("flux.adaln", 1, 18432, 3072),
    Shape("sdxl.qkv_640", 8192, 1920, 640),
    Shape("sdxl.ff_up_1280", 2048, 10240, 1280),
    Shape("sdxl.ff_down_1280", 2048, 1280, 5120),
    Shape("sdxl.cross_kv", 154, 1280, 2048),
    Shape("pixart.qkv", 8192, 3456, 1152),
    Shape("pixart.ff_up", 8192, 4608, 1152),
    Shape("wan_1.3b.ff_up", 32760, 8960, 1536),
    Shape("wan_14b.attention_out", 75600, 5120, 5120),
    Shape("wan_14b.ff_down", 75600, 5120, 13824),
    Shape("digits.ff_up", 16, 768, 192),
)

# Neither M nor N fills a tile; every K is a multiple of 64, the coarsest group.
ODD_SHAPES = (
    Shape("one_row", 1, 72, 64),
    Shape("short", 7, 8, 192),
    Shape("tile_minus_one", 63, 200, 320),
    Shape("thousand", 1000, 104, 128),
)


def cropped(shapes: tuple[Shape, ...], m: int, n: int, k: int) -> tuple[Shape, ...]:
    """The shapes cut down to at most m, n, k, for machines without a GPU; those that become equal appear once."""
    small = {(min(s.m, m), min(s.n, n), min(s.k, k)): s.name for s in reversed(shapes)}
    return tuple(Shape(name, *size) for size, name in reversed(small.items()))


def two_tiles(shape: Shape, block_m: int, block_n: int) -> Shape:
    """The shape cut to two tiles of the product and a ragged edge; K stays whole."""
    return Shape(shape.name, min(shape.m, 2 * block_m + 9), min(shape.n, 2 * block_n + 16), shape.k)
