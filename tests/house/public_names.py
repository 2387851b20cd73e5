"""The list of public names, kept in public_names.txt: `python dev.py names` writes it."""

import importlib
from pathlib import Path

from tests.house.project import modules

LIST = Path(__file__).with_name("public_names.txt")


def public_packages() -> list[str]:
    return [module.name for module in modules() if module.is_package and "._" not in module.name]


def current() -> str:
    """One line for each public name, `llama.tls.server`, sorted."""
    lines: list[str] = []
    for package in public_packages():
        lines += [f"{package}.{name}" for name in getattr(importlib.import_module(package), "__all__", [])]
    return "".join(f"{line}\n" for line in sorted(lines))


if __name__ == "__main__":
    LIST.write_text(current(), encoding="utf-8")
    print(f"{LIST.name}: {current().count(chr(10))} public names")
