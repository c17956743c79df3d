"""The layer's folder, and the Python in it that BitBake's classes and these scripts share."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

LAYER = Path(__file__).resolve().parents[2] / "meta-edgeweb"


def library(name: str) -> ModuleType:
    """A module of meta-edgeweb/lib/edgeweb_layer, which BitBake loads by layer.conf's addpylib."""
    path = LAYER / "lib" / "edgeweb_layer" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"edgeweb_layer.{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
