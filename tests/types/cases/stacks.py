"""Stacks of every kind, good and bad. Read by the type checkers only."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar, assert_type

from llama import ConnectionHandler, Connector, Layer, Service, Stream, Target, layer, serve, stack, tcp

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741


class Question:
    """What an exchange takes: a kind of its own, like a request."""


class Answer:
    """What an exchange returns."""


Dialogue = Service[Question, Answer]


def patience(seconds: float) -> Callable[[Service[I, O]], Service[I, O]]:
    """A layer for any kind of service. (mypy takes the type variables of an alias for the factory's own.)"""
    raise RuntimeError


def cipher(key: str) -> Layer[Stream, None, Stream, None]:
    """A layer from handler to handler."""
    raise RuntimeError


def language(*, dialect: str = "") -> Layer[Question, Answer, Stream, None]:
    """A layer from exchange to handler: inside one, outside the other."""
    raise RuntimeError


def politeness() -> Layer[Question, Answer, Question, Answer]:
    """A layer from exchange to exchange."""
    raise RuntimeError


@layer
async def overhear(question: Question, inner: Dialogue) -> Answer:
    return await inner(question)


@layer
async def wiretap(stream: Stream, inner: ConnectionHandler) -> None:
    await inner(stream)


async def answer(question: Question) -> Answer:
    return Answer()


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


@dataclass(frozen=True, slots=True)
class Oracle:
    """A service that is an object."""

    wisdom: int

    async def __call__(self, question: Question, /) -> Answer:
        return Answer()


class Office:
    """A service that is a method."""

    async def reply(self, question: Question) -> Answer:
        return Answer()


async def good() -> None:
    # a plain function, at every depth
    assert_type(stack(patience(5), answer), Service[Question, Answer])
    assert_type(stack(language(), answer), Service[Stream, None])
    assert_type(stack(cipher("k"), language(), answer), Service[Stream, None])
    handler: ConnectionHandler = stack(
        patience(9), cipher("k"), language(dialect="x"), patience(3), politeness(), overhear, answer
    )
    handler = stack(wiretap, cipher("k"), wiretap, echo)
    handler = stack(cipher("a"), cipher("b"), cipher("c"), echo)
    # objects, methods and nested stacks are services as well
    handler = stack(cipher("k"), language(), Oracle(3))
    handler = stack(cipher("k"), language(), Office().reply)
    handler = stack(cipher("k"), stack(language(), stack(politeness(), answer)))
    # no stack at all: calls nest, and a service alone is a stack
    handler = cipher("k")(language()(answer))
    handler = stack(echo)
    handler = echo
    # connectors are services too
    connector: Connector = stack(patience(2), tcp.connect())
    await connector(Target("localhost", 80))
    # what ends in a listener
    handler = stack(patience(5), cipher("k"), tcp.forward("127.0.0.1:8080"))
    async with (
        serve(tcp.server("127.0.0.1:0", handler)),
        serve(stack(patience(5), echo), listen="127.0.0.1:0"),
    ):
        pass
    # sixteen layers
    c = cipher("again")
    handler = stack(
        c, c, c, c, c, c, c, c, c, c, c, patience(12), c, language(), politeness(), overhear, answer
    )
    _ = handler


@language()
@politeness()
async def decorated(question: Question) -> Answer:
    return Answer()


async def also_good() -> None:
    assert_type(decorated, Service[Stream, None])
    async with serve(decorated, listen="127.0.0.1:0"):
        pass


def bad() -> None:
    handler: ConnectionHandler
    handler = stack(language(), cipher("k"), answer)  # expect: error
    handler = stack(cipher("k"), answer)  # expect: error
    handler = stack(language(), echo)  # expect: error
    handler = stack(politeness(), echo)  # expect: error
    handler = stack(politeness(), language(), answer)  # expect: error
    handler = stack(language(), politeness(), cipher("k"), echo)  # expect: error
    handler = stack(cipher("k"), patience(3), answer)  # expect: error
    handler = stack(overhear, echo)  # expect: error
    handler = stack(wiretap, answer)  # expect: error
    handler = stack(cipher("k"), language(), Oracle)  # expect: error
    handler = stack(cipher, echo)  # expect: error
    handler = stack(cipher("k"), language, answer)  # expect: error
    handler = stack(cipher("k"), wiretap, tcp.connect())  # expect: error
    handler = stack(patience(3), tcp.connect())  # expect: error
    handler = answer  # expect: error
    handler = tcp.connect()  # expect: error
    dialogue: Dialogue = stack(language(), answer)  # expect: error
    connector: Connector = tcp.forward("127.0.0.1:8080")  # expect: error
    _ = handler, dialogue, connector


async def bad_servers() -> None:
    tcp.server("127.0.0.1:0", answer)  # expect: error
    tcp.server("127.0.0.1:0", language())  # expect: error
    tcp.server("127.0.0.1:0", stack(patience(5), tcp.connect()))  # expect: error
    serve(answer, listen="127.0.0.1:0")  # expect: error
    serve(stack(patience(5), answer), listen="127.0.0.1:0")  # expect: error
    tcp.forward("127.0.0.1:8080", connect=echo)  # expect: error


def not_async(stream: Stream) -> None:
    stream.abort()


async def no_input() -> None:
    await asyncio.sleep(0)


async def two_inputs(stream: Stream, more: str) -> None:
    await stream.aclose()


def bad_functions() -> None:
    handler: ConnectionHandler
    handler = not_async  # expect: error
    handler = no_input  # expect: error
    handler = two_inputs  # expect: error
    handler = stack(cipher("k"), not_async)  # expect: error
    handler = stack(cipher("k"), no_input)  # expect: error
    _ = handler


def bad_layers() -> None:
    async def forgets_inner(stream: Stream) -> None:
        await stream.aclose()

    async def turned_round(inner: ConnectionHandler, stream: Stream) -> None:
        await inner(stream)

    layer(forgets_inner)  # expect: error
    handler: ConnectionHandler = stack(layer(turned_round), echo)  # expect: error
    factory: Callable[[float], Awaitable[None]] = patience  # expect: error
    _ = handler, factory
