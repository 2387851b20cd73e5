"""Layers that keep the kind of their service."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from llama._core.service import Layer, RequestT, ResponseT, Service
from llama._core.stack import named_layer


def same_type_layer(
    name: str, build: Callable[[Service[RequestT, ResponseT]], Service[RequestT, ResponseT]]
) -> Callable[[Service[RequestT, ResponseT]], Service[RequestT, ResponseT]]:
    """Return a layer with a name for its `repr`."""
    # Cast through object: pyright loses the inner service's input type when the four type variables are only two.
    made = named_layer(name, cast("Layer[object, object, object, object]", build))
    return cast("Callable[[Service[RequestT, ResponseT]], Service[RequestT, ResponseT]]", made)


def noop_layer(name: str) -> Callable[[Service[RequestT, ResponseT]], Service[RequestT, ResponseT]]:
    """Return the layer of a factory whose setting is None: it adds nothing to the service."""

    def build(inner: Service[RequestT, ResponseT]) -> Service[RequestT, ResponseT]:
        return inner

    return same_type_layer(f"{name}(None)", build)
