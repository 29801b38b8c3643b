"""Offline: recipes, which layer gets which format, and the transforms and rounding that fit its stored tensors."""

from .recipe import RECIPES, Recipe, get_recipe
from .select import Decision, decide, model_bytes
from .svdquant import QuantizedGroup, quantize_group

__all__ = ["RECIPES", "Decision", "QuantizedGroup", "Recipe", "decide", "get_recipe", "model_bytes", "quantize_group"]
