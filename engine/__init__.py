"""Low-bit inference for diffusers pipelines: pass a pipeline in, get the same pipeline back, 4-bit and cached."""

from importlib import import_module
from importlib.metadata import version
from typing import Any

if __name__ != "halfbyte":
    raise ImportError(f"imported as {__name__!r}; the package is 'halfbyte' (pip install -e .)")

from .checkpoint import register

__version__ = version("halfbyte")

# Loaded at first use, so that `import halfbyte` stays cheap in a server that only needs its quantizer registered.
_HOME = {
    "CacheConfig": "steps",
    "DampedLinear": "steps",
    "FirstBlockGate": "steps",
    "Hold": "steps",
    "Linear": "steps",
    "Plan": "plan",
    "RECIPES": "quantize",
    "Recipe": "quantize",
    "StaticSchedule": "steps",
    "accelerate": "pipeline",
    "decide": "quantize",
    "from_pretrained": "pipeline",
}
__all__ = ["__version__", *_HOME]

register()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'halfbyte' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
