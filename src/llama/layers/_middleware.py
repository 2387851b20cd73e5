"""Layers that leave the kind of service as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from llama._service import I, Layer, O, Service
from llama._stack import named_layer


def middleware(
    name: str, build: Callable[[Service[I, O]], Service[I, O]]
) -> Callable[[Service[I, O]], Service[I, O]]:
    """A layer that shows its name."""
    # By way of object: pyright loses the inner service's input when the four type variables are but two.
    made = named_layer(name, cast("Layer[object, object, object, object]", build))
    return cast("Callable[[Service[I, O]], Service[I, O]]", made)


def off(name: str) -> Callable[[Service[I, O]], Service[I, O]]:
    """What a factory returns when its setting is None: switched off, a layer costs nothing."""

    def build(inner: Service[I, O]) -> Service[I, O]:
        return inner

    return middleware(f"{name}(None)", build)
