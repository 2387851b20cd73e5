"""What type checkers infer of stacks with generic layers: mypy and pyright read these lines."""

from typing import assert_type

from llama import (
    ConnectionHandler,
    Connector,
    PeerAddress,
    Predicate,
    Service,
    Stream,
    Target,
    close,
    concurrency_limit,
    rate_limit,
    retry,
    route,
    stack,
    tcp,
    timeout,
    trace,
)


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


def host(stream: Stream) -> str:
    return stream.extensions[PeerAddress].host


@Predicate
def is_local(stream: Stream) -> bool:
    return host(stream) == "127.0.0.1"


@Predicate
def always(_: object) -> bool:
    return True


def test_a_stack_of_generic_layers_keeps_the_kind_of_its_service() -> None:
    handler = stack(timeout(5), concurrency_limit(10), rate_limit(5), retry(2), trace("echo"), echo)
    assert_type(handler, Service[Stream, None])
    listened: ConnectionHandler = handler
    assert listened is handler


def test_connectors_stay_connectors() -> None:
    connector = stack(timeout(5), retry(3), concurrency_limit(8, queue=None), tcp.connect())
    assert_type(connector, Service[Target, Stream])
    connecting: Connector = connector
    assert connecting is connector


def test_a_key_fits_what_the_service_takes() -> None:
    assert_type(stack(rate_limit(5, key=host), timeout(None), echo), Service[Stream, None])


def test_predicates_of_different_inputs_combine_to_the_narrower() -> None:
    assert_type(is_local & always, Predicate[Stream])
    assert_type(always | is_local, Predicate[Stream])
    assert_type(~always, Predicate[object])


def test_routes_take_what_their_services_take() -> None:
    assert_type(route((is_local & ~always, echo), default=close()), Service[Stream, None])
