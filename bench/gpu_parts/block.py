"""One FLUX double- and one single-stream block, low-bit as they are and fused, against bf16 eager and compiled."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .context import Context, missing_packages
from .flux_model import build, first_latents, inputs
from .low_bit import convert_data_free, fuse_blocks, prepare
from .candidates import Candidates

STACKS = {"double": "transformer_blocks", "single": "single_transformer_blocks"}


def run(context: Context) -> None:
    if absent := missing_packages(["diffusers"]):
        context.absent(f"{absent[0]} is not installed, and the blocks are its own")
        return
    config = context.sizes.flux | {"num_layers": 1, "num_single_layers": 1}
    plain = build(context.sizes, context.device, config)
    with torch.no_grad():
        arguments = block_arguments(context, plain)
        low_bit = copy.deepcopy(plain)
        layers = convert_data_free(low_bit)["layers"]
        kinds = prepare(low_bit)["kinds"]
        fused = copy.deepcopy(low_bit)
        reasons = fuse_blocks(context, fused)
        models = {"bf16": plain, "low-bit": low_bit} | ({} if reasons is None else {"low-bit fused": fused})
        for model in models.values():
            context.compile_blocks(model)
        for name, stack in STACKS.items():
            blocks = {way: getattr(model, stack)[0] for way, model in models.items()}
            found = context.case(name, lambda: compare(context, blocks, arguments), needs=60)
            if found:
                found |= {"layers": layers, "kinds": kinds, "why unfused": reasons}


def block_arguments(context: Context, model: nn.Module) -> dict[str, Any]:
    """What the model hands its first block."""
    seen: dict[str, Any] = {}
    first = model.transformer_blocks[0]
    hook = first.register_forward_pre_hook(lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True)
    timestep = torch.full((1,), 0.5, device=context.device, dtype=torch.bfloat16)
    model(hidden_states=first_latents(context.sizes, context.device), timestep=timestep, **inputs(context.sizes, context.device))
    hook.remove()
    return seen


def compare(context: Context, blocks: dict[str, nn.Module], arguments: dict[str, Any]) -> dict[str, Any]:
    candidates = Candidates(context)
    for way, block in blocks.items():
        candidates.add(f"{way} eager", lambda block=block: eagerly(block, arguments))
        candidates.add(f"{way} compiled", lambda block=block: block(**arguments))
    found = candidates.measure(("bf16 eager", "bf16 compiled"), flop_of(blocks["bf16"], arguments))
    others = {way: block for way, block in blocks.items() if way != "bf16"}
    return found | {"relative RMS to bf16": {way: distance(blocks["bf16"], block, arguments) for way, block in others.items()}}


def eagerly(block: nn.Module, arguments: dict[str, Any]) -> Any:
    """A compiled block as it was before."""
    with torch.compiler.set_stance("force_eager"):
        return block(**arguments)


def distance(reference: Callable[..., Any], block: Callable[..., Any], arguments: dict[str, Any]) -> float:
    from halfbyte.testing import relative_rms

    pairs = zip(block(**arguments), reference(**arguments), strict=True)
    return max(relative_rms(got, want) for got, want in pairs)


def flop_of(block: nn.Module, arguments: dict[str, Any]) -> int:
    """Of the linears on all tokens they see, and of attention over all of them."""
    image, text = (arguments[name].shape[1] for name in ("hidden_states", "encoder_hidden_states"))
    both = image + text
    width = arguments["hidden_states"].shape[2]
    total = 4 * both * both * width
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear) and "norm" not in name:
            total += 2 * module.in_features * module.out_features * rows(name, image, text, hasattr(block, "ff_context"))
    return total


def rows(name: str, image: int, text: int, is_double: bool) -> int:
    if not is_double:
        return image + text
    return text if "add" in name or "context" in name else image
