"""Layers that keep the kind of their service."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from llama._core.service import I, Layer, O, Service
from llama._core.stack import named_layer


def middleware(
    name: str, build: Callable[[Service[I, O]], Service[I, O]]
) -> Callable[[Service[I, O]], Service[I, O]]:
    """Return a layer with a name for its `repr`."""
    # Cast through object: pyright loses the inner service's input type when the four type variables are only two.
    made = named_layer(name, cast("Layer[object, object, object, object]", build))
    return cast("Callable[[Service[I, O]], Service[I, O]]", made)


def off(name: str) -> Callable[[Service[I, O]], Service[I, O]]:
    """Return the layer of a factory whose setting is None: it adds nothing to the service."""

    def build(inner: Service[I, O]) -> Service[I, O]:
        return inner

    return middleware(f"{name}(None)", build)
