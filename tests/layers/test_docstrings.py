"""The examples in the docstrings of layers and middleware are code that works."""

import inspect
import textwrap
from collections.abc import Callable

import pytest

from llama import PeerAddress, Predicate, Stream, http, layers, stack, tcp, tls
from llama.http import Request, Response


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def application(request: Request) -> Response:
    return Response()


@Predicate
def from_inside(stream: Stream) -> bool:
    return stream.extensions[PeerAddress].host.startswith("10.")


@Predicate
def is_busy(_: Stream) -> bool:
    return False


AROUND = {
    "application": application,
    "echo": echo,
    "from_inside": from_inside,
    "http": http,
    "is_busy": is_busy,
    "stack": stack,
    "tcp": tcp,
    "tls": tls,
}
TCP = (
    "allow",
    "count",
    "deny",
    "idle_timeout",
    "lifetime",
    "connection_limit",
    "per_peer_limit",
    "proxy_protocol",
    "route",
    "send_proxy",
    "throttle",
)
FACTORIES: dict[str, Callable[..., object]] = {
    **{name: getattr(layers, name) for name in layers.__all__ if name.islower()},
    **{f"tcp.{name}": getattr(tcp, name) for name in TCP},
}


def examples_in(factory: Callable[..., object]) -> list[str]:
    """The paragraphs of a docstring that are code."""
    found: list[str] = []
    for paragraph in inspect.cleandoc(factory.__doc__ or "").split("\n\n"):
        text = textwrap.dedent(paragraph)
        try:
            compile(text, "example", "exec")
        except SyntaxError:
            continue
        found.append(text)
    return found


@pytest.mark.parametrize("name", FACTORIES)
def test_the_example_of_a_factory_works(name: str) -> None:
    examples = examples_in(FACTORIES[name])
    assert any(f"{name}(" in example for example in examples)
    for example in examples:
        exec(example, {**AROUND, **{each: getattr(layers, each) for each in layers.__all__}})
