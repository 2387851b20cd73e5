"""The examples in docstrings build."""

import inspect
import re

import pytest

import llama
from llama import http
from tests.http.serving import hello

NAMES = [name for name in http.__all__ if "stack(" in (getattr(http, name).__doc__ or "")]


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_layer_builds(name: str) -> None:
    text = inspect.getdoc(getattr(http, name)) or ""
    examples = re.findall(r"^ *(stack\(.*\))$", text, re.MULTILINE) or re.findall(r"`(stack\(.*?\))`", text)
    assert examples
    for example in examples:
        built = eval(example, {"stack": llama.stack, "http": http, "application": hello})
        assert repr(built) == "http.server()"


def test_every_layer_has_an_example() -> None:
    from llama.http import layers

    assert {name for name in layers.__all__ if name.islower()} <= set(NAMES)
