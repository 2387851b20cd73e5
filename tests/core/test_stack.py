import asyncio
import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from llama import Bridge, Service, Stream, Target, describe, layer, serve, stack, tcp
from llama._core.stack import check_accepts, check_service, display_name, layer_factory, named_layer


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Timeout:
    inner: Any
    seconds: float

    def __repr__(self) -> str:
        return f"timeout({self.seconds:g})"

    async def __call__(self, input: Any, /) -> Any:
        async with asyncio.timeout(self.seconds):
            return await self.inner(input)


@layer_factory("timeout")
def timeout(seconds: float) -> Any:
    return named_layer(f"timeout({seconds:g})", lambda inner: Timeout(inner, seconds))


class Request:
    pass


@layer_factory("http.server")
def http_server() -> Any:
    return named_layer(
        "http.server()", lambda inner: HttpServer(inner), input_type=Stream, inner_type=Request
    )


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class HttpServer:
    inner: Any

    __input_type__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return "http.server()"

    async def __call__(self, stream: Stream, /) -> None:
        await self.inner(Request())


def tls_server(name: str) -> Any:
    return named_layer(
        f"tls.server({name})", lambda inner: TlsServer(inner, name), input_type=Stream, inner_type=Stream
    )


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class TlsServer:
    inner: Any
    name: str

    __input_type__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return f"tls.server({self.name})"

    async def __call__(self, stream: Stream, /) -> None:
        await self.inner(stream)


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def double(number: int) -> int:
    return number * 2


# As for people without a type checker.
untyped: Any = stack
server: Any = tcp.server
forward: Any = tcp.forward

# What a right stack does.


async def test_data_flows_through_the_layers_in_the_order_written() -> None:
    def adds(number: int) -> Any:
        @layer
        async def add(value: int, inner: Service[int, int]) -> int:
            return await inner(value + number)

        return add

    assert await stack(double)(1) == 2
    assert await stack(adds(3), double)(1) == 8
    assert await stack(adds(3), adds(10), double)(1) == 28


async def test_a_layer_sees_the_result_of_its_inner_service() -> None:
    @layer
    async def negate(value: int, inner: Service[int, int]) -> int:
        return -await inner(value)

    assert await stack(negate, timeout(5), double)(2) == -4


async def test_a_layer_decorates_a_service() -> None:
    @layer
    async def increment(value: int, inner: Service[int, int]) -> int:
        return await inner(value + 1)

    @increment
    async def half(number: int) -> int:
        return number // 2

    assert await half(7) == 4
    assert describe(half) == "increment > half"


async def test_stacks_are_typed_up_to_sixteen_layers_and_run_with_more() -> None:
    @layer
    async def increment(value: int, inner: Service[int, int]) -> int:
        return await inner(value + 1)

    parts: list[Any] = [increment] * 40
    assert await untyped(*parts, double)(0) == 80


def test_a_plain_function_may_be_a_layer() -> None:
    def untagged(inner: Any) -> Any:
        return functools.partial(_call, inner)

    assert callable(stack(untagged, echo))
    assert callable(stack(timeout(1), untagged, http_server(), echo))


async def _call(inner: Any, input: Any) -> Any:
    return await inner(input)


# What a wrong stack says.


def says(message: str) -> Any:
    return pytest.raises(TypeError, match=f"^{functools.reduce(_escape, '()[]+.', message)}$")


def _escape(text: str, mark: str) -> str:
    return text.replace(mark, "\\" + mark)


def test_an_uncalled_factory_is_rejected() -> None:
    with says("timeout is a layer factory: call it"):
        untyped(timeout, echo)
    with says("timeout is a layer factory: call it"):
        untyped(timeout)
    with says("tcp.forward is a handler factory: call it"):
        untyped(timeout(5), tcp.forward)
    with says("tcp.connect is a connector factory: call it"):
        forward("127.0.0.1:1", connect=tcp.connect)
    with says("tcp.relay is a relay factory: call it"):
        forward("127.0.0.1:1", relay=tcp.relay)


async def test_a_layer_without_a_service_is_rejected() -> None:
    with says("tls.server(c.pem) is a layer: put a service after it"):
        untyped(timeout(5), tls_server("c.pem"))
    with says("tls.server(c.pem) is a layer: put a service after it"):
        untyped(tls_server("c.pem"))
    with says("tls.server(c.pem) is a layer: put a service after it"):
        server("127.0.0.1:0", tls_server("c.pem"))
    with says("timeout(5) is a layer: put a service after it"):
        async with serve(timeout(5), listen="127.0.0.1:0"):
            pass


def test_two_layers_in_the_wrong_order_are_rejected() -> None:
    async def exchange(request: Request) -> None:
        pass

    with says("http.server() gives Request, tls.server(c.pem) takes Stream: swap them"):
        untyped(http_server(), tls_server("c.pem"), echo)
    with says("http.server() gives Request, tls.server(c.pem) takes Stream: swap them"):
        untyped(http_server(), timeout(5), tls_server("c.pem"), echo)
    assert callable(untyped(tls_server("c.pem"), http_server(), exchange))


def test_a_service_before_the_end_is_rejected() -> None:
    with says("double is a service, not a layer: only the last part of a stack can be one"):
        untyped(double, echo)
    with says("tcp.forward(127.0.0.1:1) is a service: only the last part of a stack can be one"):
        untyped(forward("127.0.0.1:1"), echo)


def test_a_service_of_the_wrong_type_is_rejected() -> None:
    with says("tcp.server() gives Stream, tcp.connect() takes Target"):
        server("127.0.0.1:0", tcp.connect())
    with says("tcp.server() gives Stream, tcp.relay() takes Bridge"):
        server("127.0.0.1:0", tcp.relay())
    with says("tcp.forward(connect=) gives Target, tcp.forward(127.0.0.1:1) takes Stream"):
        forward("127.0.0.1:1", connect=forward("127.0.0.1:1"))
    with says("tls.server(c.pem) gives Stream, tcp.connect() takes Target: swap them"):
        untyped(tls_server("c.pem"), timeout(5), tcp.connect())


def test_the_annotation_of_a_layer_function_is_its_input_type() -> None:
    @layer
    async def over_targets(target: Target, inner: Service[Target, Stream]) -> Stream:
        return await inner(target)

    @layer
    async def over_bridges(bridge: "Bridge", inner: Service[Bridge, None]) -> None:
        await inner(bridge)

    @layer
    async def over_anything(input: Any, inner: Service[Any, Any]) -> Any:
        return await inner(input)

    with says("tls.server(c.pem) gives Stream, over_targets takes Target: swap them"):
        untyped(tls_server("c.pem"), over_targets, tcp.connect())
    with says("tcp.forward(relay=) gives Bridge, over_targets takes Target"):
        forward("h:1", relay=over_targets(tcp.connect()))
    check_accepts(over_bridges(tcp.relay()), Bridge, "here")
    # a function that says nothing of its input may well change the kind
    check_accepts(untyped(over_anything, over_targets, tcp.connect()), Stream, "here")


def test_an_unreadable_annotation_is_ignored() -> None:
    @layer
    async def odd(input: "NoSuchName", inner: Any) -> Any:  # type: ignore[name-defined]  # noqa: F821
        return await inner(input)

    assert callable(untyped(tls_server("c.pem"), odd, echo))


def test_a_part_that_is_not_callable_is_rejected() -> None:
    with says("5 is neither a layer nor a service: it cannot be called"):
        untyped(timeout(5), 5)
    with says("'echo' is neither a layer nor a service: it cannot be called"):
        untyped("echo", echo)
    with says("stack() takes layers and, last, a service"):
        untyped()
    with says("None is neither a layer nor a service: it cannot be called"):
        check_service(None)


def test_a_layer_that_does_not_return_a_service_is_rejected() -> None:
    def forgets(inner: Any) -> None:
        pass

    with says("forgets is not a layer: it returned None, not a service"):
        untyped(forgets, echo)


async def test_run_and_serve_reject_invalid_stacks() -> None:
    with says("echo has no address: give listen=, or wrap it in tcp.server()"):
        async with serve(echo):
            pass
    with says("there is nothing to serve"):
        async with serve():
            pass
    with says("listen= goes with one service; servers have their own addresses"):
        async with serve(server("127.0.0.1:0", echo), listen="127.0.0.1:0"):
            pass
    with says("listen= goes with one service; servers have their own addresses"):
        async with serve(echo, echo, listen="127.0.0.1:0"):
            pass


# What describe says.


def test_describe_lists_the_chain_outermost_first() -> None:
    inner = tcp.forward("127.0.0.1:8080")
    assert describe(stack(timeout(5), tls_server("b.pem"), inner)) == (
        "timeout(5) > tls.server(b.pem) > tcp.forward(127.0.0.1:8080)"
    )
    assert describe(echo) == "echo"


def test_services_without_a_repr_are_described_by_name() -> None:
    class Handler:
        async def __call__(self, stream: Stream) -> None:
            pass

        async def method(self, stream: Stream) -> None:
            pass

    @layer
    async def watch(stream: Stream, inner: Service[Stream, None]) -> None:
        await inner(stream)

    assert display_name(Handler()) == "Handler"
    assert display_name(Handler().method) == "Handler.method"
    assert describe(stack(watch, echo)) == "watch > echo"
    assert repr(watch) == "watch"


def test_the_repr_of_a_layer_is_its_source_form() -> None:
    assert repr(tcp.connect()) == "tcp.connect()"
    assert repr(tcp.relay(idle_timeout=2.5)) == "tcp.relay(idle_timeout=2.5)"
    assert repr(tcp.server("127.0.0.1:0", echo)) == "tcp.server(127.0.0.1:0)"


def test_services_are_weakly_referable_and_have_no_dict() -> None:
    import weakref

    for service in (tcp.connect(), tcp.relay(), tcp.forward("h:1"), stack(timeout(1), echo)):
        assert weakref.ref(service)() is service
        assert not hasattr(service, "__dict__")
