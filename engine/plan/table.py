"""A plan as text a person reads: what is stored in which bits, what each step does."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .document import Plan


def render(plan: Plan) -> str:
    """One line per kind of layer and denoiser, then the steps, then the figures."""
    lines = []
    for name, identity in plan.models.items():
        layers = plan.storage.get(name, {})
        stored = plan.stored_bytes.get(name, 0)
        lines.append(f"{name}: {identity.class_name}, {len(layers)} layers quantized, {stored:,} bytes stored")
        for layer_format, count in Counter(layers.values()).most_common():
            lines.append(f"  {count:5d} x {describe(layer_format)}")
    lines.append(f"numerics: {plan.numerics}")
    lines.append(f"steps: {describe_cache(plan)}")
    lines += [f"{name}: {value:g}" for name, value in plan.figures.items()]
    lines += [f"{name}: {value}" for name, value in plan.provenance.items()]
    return "\n".join(lines)


def render_difference(plan: Plan, other: Plan) -> str:
    """The lines of `plan` that `other` lacks, with `-`, and the reverse, with `+`; layers that changed their format by name."""
    lines = []
    for name in sorted({*plan.storage, *other.storage}):
        before, after = plan.storage.get(name, {}), other.storage.get(name, {})
        for layer in sorted({*before, *after}):
            if before.get(layer) != after.get(layer):
                lines.append(f"{name}.{layer}: {describe(before.get(layer))} -> {describe(after.get(layer))}")
    ours, theirs = render(plan).splitlines(), render(other).splitlines()
    lines += [f"- {line}" for line in ours if line not in theirs and not line.startswith("  ")]
    lines += [f"+ {line}" for line in theirs if line not in ours and not line.startswith("  ")]
    return "\n".join(lines) or "no difference"


def describe(layer_format) -> str:
    """`int4 x int4, rank 32, smooth` and the like; `float` for None."""
    if layer_format is None:
        return "float"
    parts = [f"{layer_format.weight} x {layer_format.activation or '16-bit'}"]
    parts += [f"rank {layer_format.rank}"] if layer_format.rank else []
    parts += ["smooth"] if layer_format.smooth else []
    parts += [f"shift {layer_format.act_shift:g}"] if layer_format.act_shift else []
    parts += ["four-over-six"] if layer_format.four_over_six else []
    return ", ".join(parts)


def describe_cache(plan: Plan) -> str:
    if plan.cache is None:
        return "every step computes"
    text = f"{plan.cache.policy}, forecast {plan.cache.predictor}"
    return f"{text}, chosen for {plan.num_inference_steps} steps" if plan.num_inference_steps else text
