"""How large everything is: as in FLUX.1-dev on a GPU, tiny in a dry run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NAMED = ("flux.qkv", "flux.attention_out", "flux.ff_up", "flux.ff_down", "flux.single_out", "pixart.ff_up")
WIDE = ("wan_14b.attention_out",)
FLUX_DEV = {
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
    "axes_dims_rope": (16, 56, 56),
}
TINY_FLUX = FLUX_DEV | {
    "in_channels": 4,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 8,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 32,
    "axes_dims_rope": (4, 4, 8),
}


@dataclass(frozen=True)
class Sizes:
    """crop: largest M, N, K of a layer, or None; copy_bytes: of the measured copy; square: M = N = K of the measured product.

    steps: denoising runs of the 12 B part; computed: steps that its cached runs compute at most, of the longest.
    """

    crop: tuple[int, int, int] | None
    rounds: int
    copy_bytes: int
    square: int
    image_side: int
    text_tokens: int
    flux: dict[str, Any]
    steps: tuple[int, ...]
    computed: int
    run_rounds: int

    def shapes(self, names: tuple[str, ...] = NAMED) -> list[Any]:
        """Those of the names; cropped ones that are equal appear once, under the first name."""
        from halfbyte.testing import LAYER_SHAPES, cropped

        found = tuple(shape for name in names for shape in LAYER_SHAPES if shape.name == name)
        return list(cropped(found, *self.crop) if self.crop else found)


FULL = Sizes(None, 30, 2 << 30, 8192, 64, 512, FLUX_DEV, (28, 50), 22, 3)
DRY = Sizes((8, 64, 64), 2, 1 << 16, 64, 4, 8, TINY_FLUX, (3, 4), 3, 2)
