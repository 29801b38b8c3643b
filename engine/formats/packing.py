"""Two 4-bit codes in a byte, the low nibble holding the even column."""

from __future__ import annotations

import torch
from torch import Tensor


def pack_nibbles(codes: Tensor) -> Tensor:
    """Pack 4-bit codes, signed (-8..7) or unsigned (0..15).

    codes: integer [..., K] -> int8 [..., K/2]. Raises ValueError when K is odd.
    """
    if codes.shape[-1] % 2:
        raise ValueError(f"codes: the last dimension must be even to pack two codes in a byte, got {codes.shape[-1]}")
    codes = codes.to(torch.int8)
    return (codes[..., 0::2] & 0xF) | (codes[..., 1::2] << 4)


def unpack_nibbles(packed: Tensor, signed: bool) -> Tensor:
    """Unpack the codes that `pack_nibbles` packed.

    packed: int8 [..., K/2] -> int8 [..., K], in -8..7 when signed, else 0..15.
    """
    if packed.dtype != torch.int8:
        raise ValueError(f"packed: dtype int8 needed, got {packed.dtype}")
    # A 16-bit word holds two int8 codes, the even column in the low byte: CPUs and GPUs here are little-endian.
    wide = packed.to(torch.int16).contiguous()
    codes = ((wide & 0xF) | ((wide & 0xF0) << 4)).view(torch.int8)
    # Moving the range up by 8 and down again extends the sign of a nibble.
    return (codes ^ 8) - 8 if signed else codes
