"""Converting, preparing and fusing, with the options that this version of halfbyte has."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from typing import Any

from torch import nn

from .context import Context

RECIPE = "svdq_int4"
ROUNDS = re.compile(r"low rank from round (\d+) of (\d+)")


def convert_data_free(model: nn.Module, recipe: str = RECIPE) -> dict[str, Any]:
    """In place, one block at a time, as `convert` does by default. Returns layers by stored format, and the rounds of the fit."""
    from halfbyte.convert import convert

    decisions = convert(model, recipe, low_memory=True)
    formats = [str(decision.layer_format.weight) if decision.layer_format else "float" for decision in decisions]
    found = [ROUNDS.search(decision.reason) for decision in decisions]
    rounds = {
        "of the fit": sorted(Counter(int(match[2]) for match in found if match).items()),
        "that were kept": sorted(Counter(int(match[1]) for match in found if match).items()),
    }
    return {"layers": {name: formats.count(name) for name in sorted(set(formats))}, "rounds, each with its layers": rounds}


def prepare(model: nn.Module, **options: Any) -> dict[str, Any]:
    """Kinds of layers and bytes of what runs."""
    from halfbyte.layers import prepare as prepare_layers

    report = prepare_layers(model, **options)
    return {"kinds": report.kinds, "prepared bytes": report.prepared_bytes}


def reason_against_option(name: str) -> str | None:
    """One sentence when this version's `halfbyte.layers.prepare` has no such option, or None."""
    from halfbyte.layers import prepare as prepare_layers

    known = name in inspect.signature(prepare_layers).parameters
    return None if known else f"halfbyte.layers.prepare has no option {name!r} in this version"


def fuse_blocks(context: Context, model: nn.Module) -> dict[str, str | None] | None:
    """Put the model's blocks on the fused ops; returns per block why it runs unfused all the same (None: it runs fused).

    None altogether, and a sentence in the record, where this version has no fused blocks.
    """
    try:
        from halfbyte.models.fused import fuse_blocks as fuse
    except ImportError as error:
        context.absent(f"fused blocks are not in this version ({error})")
        return None
    return fuse(model).reasons
