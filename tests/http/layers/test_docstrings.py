"""The examples in docstrings can be built."""

import inspect
import re

import pytest

import llama
from llama import http
from tests.http.serving import hello


def examples_of(name: str) -> list[str]:
    """Return the one-line stacks in a docstring; those inside a `run` over several lines are skipped."""
    text = inspect.getdoc(getattr(http, name)) or ""
    return re.findall(r"^ *(stack\(.*\))$", text, re.MULTILINE) or re.findall(r"`(stack\(.*?\))`", text)


NAMES = [name for name in http.__all__ if examples_of(name)]


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_layer_builds(name: str) -> None:
    for example in examples_of(name):
        built = eval(example, {"stack": llama.stack, "http": http, "application": hello})
        assert repr(built) == "http.server()"


def test_every_layer_has_an_example() -> None:
    from llama.http import _layers

    assert {name for name in _layers.__all__ if name.islower()} <= set(NAMES)
