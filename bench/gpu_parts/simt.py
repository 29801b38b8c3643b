"""The GPU against the same CUDA source run on the CPU by the SIMT shim: integer paths bit for bit, 16-bit ones within 1e-4."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .build import install
from .context import Context
from .record import ROOT

SIXTEEN_BIT_LIMIT = 1e-4
OPS_COMPARED = (
    "quantize_act", "norm_quantize", "gemm_w4a4", "gemm_w8a8", "gemm_nvfp4", "gemm_w4a16", "qk_norm_rope", "joint_qkv_norm_rope"
)  # fmt: skip


def run(context: Context) -> None:
    if not context.dry and not built():
        context.case("build the shim", lambda: install(context.seconds_left, context.log, simt=True), needs=120)
    from halfbyte.ops import OPS

    if reason := OPS["gemm_w4a4"].missing("simt"):
        context.absent(f"the SIMT shim is not built here ({reason})")
        return
    kernels = "simt" if context.dry else "cuda"
    if kernels == "cuda" and (reason := OPS["gemm_w4a4"].missing("cuda")):
        context.absent(f"no CUDA kernels here ({reason})")
        return
    for name in ("gemm_w4a4",) if context.dry else OPS_COMPARED:
        context.case(name, lambda: compare(name, kernels, context.device))


def built() -> bool:
    """Looked for on disk: an import that failed would be remembered."""
    return any((ROOT / "engine").glob("_simt*.so"))


def compare(name: str, kernels: str, device: str) -> dict[str, Any]:
    """Per call "equal bits" or the relative RMS error. Raises AssertionError beyond what the call allows."""
    from halfbyte.ops import OPS, NoBackendError, use_backend
    from halfbyte.testing import outputs_as_floats, relative_rms

    found: dict[str, Any] = {}
    for id, args, exact in calls(name):
        try:
            with use_backend(kernels):
                on_gpu = to(OPS[name](*to(args, device)), "cpu")
        except NoBackendError as error:
            found[id] = str(error)
            continue
        with use_backend("simt"):
            on_cpu = OPS[name](*args)
        if same_bits(on_gpu, on_cpu):
            found[id] = "equal bits"
            continue
        pairs = zip(outputs_as_floats(name, args, on_gpu).values(), outputs_as_floats(name, args, on_cpu).values(), strict=True)
        found[id] = max(relative_rms(got, want) for (got, _), (want, _) in pairs)
        assert not exact, f"{name} {id}: equal bits needed, got a relative RMS error of {found[id]:.3g}"
        assert found[id] <= SIXTEEN_BIT_LIMIT, f"{name} {id}: at most {SIXTEEN_BIT_LIMIT} needed, got {found[id]:.3g}"
    return {"calls": found}


def calls(name: str) -> Iterator[tuple[str, tuple, bool]]:
    """id, arguments, and whether bits must be equal: those of a product of integers without a low-rank branch must."""
    import torch
    from halfbyte.testing import ODD_SHAPES, calls_of

    for shape in ODD_SHAPES:
        # In float32, as a result rounded to 16 bits would hide or magnify a difference of one unit.
        for id, args in calls_of(name, shape, torch.bfloat16).items():
            args = tuple(torch.float32 if arg is torch.bfloat16 else arg for arg in args)
            exact = (name == "gemm_w4a4" or id.startswith("int8")) and id.endswith("plain") and name.startswith("gemm")
            yield f"{id} {shape.name}", args, exact


def to(value: Any, device: str) -> Any:
    import torch
    from torch.utils._pytree import tree_map_only

    return tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), value)


def same_bits(first: Any, second: Any) -> bool:
    import torch
    from torch.utils._pytree import tree_leaves

    def as_bytes(value: Any) -> list[torch.Tensor]:
        return [leaf.reshape(-1).contiguous().view(torch.uint8) for leaf in tree_leaves(value)]

    return all(torch.equal(a, b) for a, b in zip(as_bytes(first), as_bytes(second), strict=True))
