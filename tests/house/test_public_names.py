"""What the project promises: a name that comes or goes shows in a diff of public_names.txt."""

import importlib
import inspect

import pytest

from tests.house.public_names import LIST, current, public_packages

pytestmark = pytest.mark.house


def test_the_public_names_are_those_on_the_list() -> None:
    listed, now = set(LIST.read_text(encoding="utf-8").split()), set(current().split())
    advice = "if that is meant: python dev.py names"
    assert listed == now, f"new: {sorted(now - listed)}; gone: {sorted(listed - now)}; {advice}"


@pytest.mark.parametrize("package", public_packages())
def test_public_names_exist_and_say_what_they_are(package: str) -> None:
    module = importlib.import_module(package)
    for name in getattr(module, "__all__", []):
        assert not name.startswith("_") or name == "__version__", f"{package}.{name} is private by its name"
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value) or inspect.ismodule(value):
            assert (value.__doc__ or "").strip(), f"{package}.{name} has no docstring"
