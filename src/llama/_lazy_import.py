"""Lazy imports: a package loads a name's module on first access, so that unused modules cost nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence


def lazy_names(
    package: str, names: Sequence[str], modules: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], Sequence[str]]]:
    """Return a package's `__getattr__` and `__dir__` (PEP 562): `names` are all its names, `modules` the lazy ones."""

    def load(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(modules[name])
        value = module if module.__name__ == f"{package}.{name}" else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: names
