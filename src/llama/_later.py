"""Names of a package that are loaded when somebody asks for them: what a program does not use costs it nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence


def later(
    package: str, names: Sequence[str], modules: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], Sequence[str]]]:
    """A package's `__getattr__` and `__dir__` (PEP 562): all its names, and the modules of those that are late."""

    def load(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(modules[name])
        value = module if module.__name__ == f"{package}.{name}" else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: names
