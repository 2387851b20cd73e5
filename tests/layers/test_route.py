import pytest

from llama import Predicate, Stream, Target, close, describe, route, serve, stack, tcp, testing, timeout


async def small(_: int) -> str:
    return "small"


async def even(_: int) -> str:
    return "even"


async def other(_: int) -> str:
    return "other"


@Predicate
def is_small(number: int) -> bool:
    return number < 10


@Predicate
def is_even(number: int) -> bool:
    return number % 2 == 0


def is_three(number: int) -> bool:
    return number == 3


async def test_the_first_true_predicate_selects_the_service_else_the_default() -> None:
    service = route((is_small, small), (is_even, even), default=other)
    assert [await service(number) for number in (4, 12, 13)] == ["small", "even", "other"]


@pytest.mark.parametrize(
    ("predicate", "holds"),
    [
        (is_small & is_even, [2, 4]),
        (is_small & is_three, [3]),
        (is_three & is_small, [3]),
        (is_even | is_three, [2, 3, 4, 12]),
        (is_three | is_even, [2, 3, 4, 12]),
        (~is_small, [12, 13]),
        (~(is_small & is_even) & ~is_small, [12, 13]),
    ],
)
def test_predicates_combine(predicate: Predicate[int], holds: list[int]) -> None:
    assert [number for number in (2, 3, 4, 12, 13) if predicate(number)] == holds


def test_the_second_predicate_is_not_called_when_the_first_decides() -> None:
    def never(_: int) -> bool:
        raise AssertionError

    assert not (is_small & never)(12)
    assert (is_small | never)(1)


def test_the_repr_shows_predicates_and_services() -> None:
    assert repr(~is_small & is_three | is_even) == "((~is_small & is_three) | is_even)"
    assert describe(route((~is_small, small), default=other)) == "route((~is_small, small), default=other)"


def test_services_of_different_kinds_are_refused_at_once() -> None:
    with pytest.raises(TypeError, match=r"close\(\) takes Stream, tcp.connect\(\) takes Target"):
        route((is_small, close()), default=tcp.connect())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="timeout is a layer factory: call it"):
        route((is_small, small), default=timeout)  # type: ignore[arg-type]


def test_a_route_has_the_kind_of_its_services() -> None:
    with pytest.raises(TypeError, match=r"gives Stream, .* takes Target"):
        stack(tcp.connection_limit(5), route(default=tcp.connect()))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expects pairs of a predicate and a service"):
        route(("x", small), default=other)  # type: ignore[arg-type]


async def test_the_services_of_a_route_are_entered() -> None:
    entered: list[str] = []

    class Owner:
        async def __call__(self, stream: Stream) -> None:
            await stream.write(b"owned")

        async def __aenter__(self) -> None:
            entered.append("in")

        async def __aexit__(self, *_: object) -> None:
            entered.append("out")

    def never(_: Stream) -> bool:
        return False

    async with testing.connect(route((never, close()), default=Owner())) as stream:
        assert await stream.read() == b"owned"
    assert entered == ["in", "out"]


async def test_close_ends_the_connection_cleanly() -> None:
    async with serve(close(), listen="127.0.0.1:0") as server:
        stream = await tcp.connect()(Target("127.0.0.1", server.port))
        assert await stream.read() == b""
        await stream.aclose()
    assert repr(close()) == "close()"
