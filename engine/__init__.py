"""Low-bit inference for diffusers pipelines: pass a pipeline in, get the same pipeline back, 4-bit and cached."""

from importlib.metadata import version

if __name__ != "halfbyte":
    raise ImportError(f"imported as {__name__!r}; the package is 'halfbyte' (pip install -e .)")

__version__ = version("halfbyte")
