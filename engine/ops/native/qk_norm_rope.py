"""qk_norm_rope and joint_qkv_norm_rope on the compiled kernels, which read rows wherever they lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from torch import Tensor

from .operands import ALIGNMENT, addresses, dense, floats, stream_of

MAX_ROW = 2**20


@dataclass(frozen=True)
class Side:
    """x [B, T, H, D] becomes the tokens of `out` from first_token on; unless rotated it is copied."""

    x: Tensor
    weight: Tensor | None
    out: Tensor
    first_token: int = 0
    rotated: bool = True

    @property
    def norm_all_heads(self) -> bool:
        return self.weight is not None and self.weight.shape[0] != self.x.shape[3]


def rows_of_heads(x: Tensor) -> Tensor:
    """The tensor itself where the heads of a token lie side by side and kernels can read them in 16-byte vectors, else a copy."""
    step = ALIGNMENT // x.element_size()
    aligned = x.data_ptr() % ALIGNMENT == 0 and all(stride % step == 0 for stride in x.stride()[:2])
    return x if aligned and x.stride()[2:] == (x.shape[3], 1) else dense(x)


def empty_rejects(tensors: dict[str, Tensor]) -> str | None:
    for name, x in tensors.items():
        if not x.numel():
            return f"{name} must not be empty, got shape {list(x.shape)}"
        if (width := x.shape[2] * x.shape[3]) > MAX_ROW:
            return f"{name} must have at most {MAX_ROW} elements in all heads of a token, got {width}"
    return None


def qk_norm_rope_rejects(q, k, q_weight, k_weight, cos, sin, eps, rope) -> str | None:
    return empty_rejects({"q": q, "k": k})


def joint_qkv_norm_rope_rejects(first_q, first_k, first_v, second_q, second_k, second_v, *rest) -> str | None:
    return empty_rejects({"first_q": first_q, "first_k": first_k, "second_q": second_q, "second_k": second_k})


def launch(
    kernels: ModuleType, entry: Callable[..., None], sides: list[Side], cos: Tensor, sin: Tensor, eps: float, rope: str
) -> None:
    """entry(sides, what they share, stream), both as the kernels take them."""
    xs = [rows_of_heads(side.x) for side in sides]
    tensors = {"cos": dense(cos), "sin": dense(sin)}
    for number, (side, x) in enumerate(zip(sides, xs, strict=True)):
        tensors |= {f"x {number}": x, f"weight {number}": dense(side.weight), f"out {number}": side.out}
    at = dict(zip(tensors, addresses(kernels, **tensors), strict=True))
    given = {name: floats(kernels, tensor, at[name]) for name, tensor in tensors.items()}
    batch, tokens, _, width = sides[0].out.shape
    as_sides = [
        kernels.RopeSide(
            given[f"x {number}"], given[f"weight {number}"], at[f"out {number}"], *x.stride()[:2],
            x.shape[2], x.shape[1], side.first_token, side.norm_all_heads, side.rotated,
        )
        for number, (side, x) in enumerate(zip(sides, xs, strict=True))
    ]  # fmt: skip
    arguments = kernels.RopeArguments(given["cos"], given["sin"], batch, tokens, width, eps, rope == "half")
    entry(as_sides, arguments, stream_of(cos))


def qk_norm_rope(
    kernels: ModuleType,
    q: Tensor,
    k: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    eps: float,
    rope: str,
) -> tuple[Tensor, Tensor]:
    sides = [Side(x, weight, x.new_empty(x.shape)) for x, weight in ((q, q_weight), (k, k_weight))]
    launch(kernels, lambda given, *rest: kernels.qk_norm_rope(*given, *rest), sides, cos, sin, eps, rope)
    return sides[0].out, sides[1].out


def joint_qkv_norm_rope(
    kernels: ModuleType,
    first_q: Tensor,
    first_k: Tensor,
    first_v: Tensor,
    second_q: Tensor,
    second_k: Tensor,
    second_v: Tensor,
    first_q_weight: Tensor,
    first_k_weight: Tensor,
    second_q_weight: Tensor,
    second_k_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
    eps: float,
    rope: str,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, _, width = first_q.shape
    tokens = length + second_q.shape[1]
    q, k, v = (x.new_empty(batch, tokens, x.shape[2], width) for x in (first_q, first_k, first_v))
    sides = [
        Side(first_q, first_q_weight, q), Side(first_k, first_k_weight, k), Side(first_v, None, v, rotated=False),
        Side(second_q, second_q_weight, q, length), Side(second_k, second_k_weight, k, length),
        Side(second_v, None, v, length, rotated=False),
    ]  # fmt: skip
    launch(kernels, kernels.joint_qkv_norm_rope, sides, cos, sin, eps, rope)
    return q, k, v
