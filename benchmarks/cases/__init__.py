"""The cases: every module of this package has a `CASES`. A new file is found by itself."""

from __future__ import annotations

import importlib
import pkgutil

from benchmarks.harness import Case


def all_cases() -> list[Case]:
    """Every case, by the order of the modules' `ORDER`."""
    modules = [
        importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)
    ]
    return [case for module in sorted(modules, key=lambda module: module.ORDER) for case in module.CASES]
