import importlib
import subprocess
import sys

import pytest

import llama

HEAVY = ["llama.http", "llama.tls", "llama.mitm", "llama.ws", "llama._asgi", "cryptography", "websockets"]


def loaded_by(program: str) -> list[str]:
    asks = f"{program}\nimport sys\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    return subprocess.run(
        [sys.executable, "-c", asks], check=True, capture_output=True, text=True
    ).stdout.split()


def test_a_program_imports_only_the_modules_that_it_uses() -> None:
    assert loaded_by("from llama import run, stack, tcp") == []
    assert loaded_by("from llama import socks5") == []
    assert loaded_by("from llama import http") == ["llama.http", "llama.tls", "cryptography"]


def test_every_public_name_is_available() -> None:
    assert set(dir(llama)) == set(llama.__all__)
    for name in llama.__all__:
        assert getattr(llama, name) is not None, name


def test_a_lazy_name_is_the_object_of_its_module() -> None:
    assert llama.http is importlib.import_module("llama.http")
    assert llama.asgi is importlib.import_module("llama._asgi").asgi


def test_an_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'llama' has no attribute 'nothing'"):
        getattr(llama, "nothing")  # noqa: B009
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from llama import nothing")
