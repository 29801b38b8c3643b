"""Telling diffusers that the quantization method "halfbyte" exists."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

AUTO = "diffusers.quantizers.auto"


def register() -> None:
    """Add the quantizer to diffusers' tables: now if diffusers has them loaded, else right after it loads them.

    diffusers has no call for this; its two tables are looked up at every use. Importing it here would add more than a second to
    `import halfbyte`.
    """
    if AUTO in sys.modules:
        _fill_tables(sys.modules[AUTO])
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


def _fill_tables(auto: ModuleType) -> None:
    for name in ("config", "diffusers_quantizer"):
        module = sys.modules.get(f"{__package__}.{name}")
        # It is being imported and so imports diffusers itself: it registers once it is complete.
        if module is not None and not hasattr(module, "COMPLETE"):
            return
    from .config import METHOD, HalfbyteConfig
    from .diffusers_quantizer import HalfbyteQuantizer

    auto.AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD] = HalfbyteConfig
    auto.AUTO_QUANTIZER_MAPPING[METHOD] = HalfbyteQuantizer


class _AfterImport(importlib.abc.MetaPathFinder):
    """Waits for one module, lets the usual finders load it, fills its tables, and leaves."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != AUTO:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None:
            return None
        load = spec.loader.exec_module

        def load_and_fill(module: ModuleType) -> None:
            load(module)
            _fill_tables(module)

        spec.loader.exec_module = load_and_fill
        return spec
