"""Hold a plan against the models it is to run on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from ..layers import low_bit_layers
from ..quantize import Decision, Recipe, decide, get_recipe
from .document import Plan
from .identity import ModelIdentity


def require_fit(plan: Plan, denoisers: Mapping[str, nn.Module]) -> None:
    """Raises ValueError, one sentence, when the plan was made for other models or the layers are stored otherwise."""
    if set(plan.models) != set(denoisers):
        raise ValueError(f"plan.models needs this pipeline's denoisers {sorted(denoisers)}; the plan has {sorted(plan.models)}")
    for name, model in denoisers.items():
        if reason := plan.models[name].reason_against(ModelIdentity.of(model)):
            raise ValueError(f"{name}: {reason}")
        stored = {layer: module.weight.layer_format for layer, module in low_bit_layers(model).items()}
        planned = plan.storage.get(name, {})
        if stored and stored != dict(planned):
            layer = next(layer for layer in sorted({*stored, *planned}) if stored.get(layer) != planned.get(layer))
            raise ValueError(f"{name}.{layer}: the plan stores it as {planned.get(layer)}, the loaded model as {stored.get(layer)}")


def planned_recipe(plan: Plan) -> Recipe | None:
    """The recipe the plan names, or spells out when it was the user's own; ValueError when it is neither."""
    recipe = plan.provenance.get("recipe")
    if isinstance(recipe, dict):
        try:
            return Recipe.from_dict(recipe)
        except (TypeError, ValueError) as error:
            raise ValueError(f"plan.provenance.recipe: {error}") from None
    return get_recipe(recipe) if recipe else None


def planned_decisions(plan: Plan, name: str, model: nn.Module) -> list[Decision]:
    """The plan's storage as decisions for a float model; raises ValueError for a layer the model lacks or that does not fit."""
    planned = plan.storage.get(name, {})
    decisions = {decision.name: decision for decision in decide(model, planned_recipe(plan) or "rtn_int4")}
    if missing := sorted(set(planned) - set(decisions)):
        raise ValueError(f"plan.storage.{name}: {missing[0]} needs to be a linear or convolution of the model; it is none")
    owned: set[str] = set()
    chosen = []
    for layer, decision in decisions.items():
        layer_format = planned.get(layer)
        if layer_format is None:
            chosen.append(replace(decision, layer_format=None, reason="stays float: the plan says so", stored_bytes=decision.float_bytes))
            continue
        if reason := layer_format.reason_against(*decision.sizes):
            raise ValueError(f"plan.storage.{name}.{layer}: {reason}")
        dtype = model.get_submodule(layer).weight.dtype
        stored = layer_format.stored_bytes(*decision.sizes, dtype, decision.input_group not in owned)
        owned.add(decision.input_group)
        chosen.append(replace(decision, layer_format=layer_format, reason="the plan says so", stored_bytes=stored))
    return chosen
