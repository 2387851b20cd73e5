"""A service that selects another by predicates."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic

from llama._core.service import RequestT, ResponseT, Service
from llama._core.stack import check_service, display_name, input_type_of, layer_factory


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Route(Generic[RequestT, ResponseT]):
    """Passes each input to the first service whose predicate is true, else to the default."""

    routes: tuple[tuple[Callable[[RequestT], bool], Service[RequestT, ResponseT]], ...]
    default: Service[RequestT, ResponseT]
    kind: type | None

    @property
    def __input_type__(self) -> type | None:
        return self.kind

    def __repr__(self) -> str:
        chosen = "".join(
            f"({display_name(test)}, {display_name(service)}), " for test, service in self.routes
        )
        return f"route({chosen}default={display_name(self.default)})"

    def __call__(self, input: RequestT, /) -> Awaitable[ResponseT]:
        for predicate, service in self.routes:
            if predicate(input):
                return service(input)
        return self.default(input)


@layer_factory("route", "service")
def route(
    *routes: tuple[Callable[[RequestT], bool], Service[RequestT, ResponseT]],
    default: Service[RequestT, ResponseT],
) -> Service[RequestT, ResponseT]:
    """Pass each input to the first service whose predicate is true, else to the default.

    A predicate is a function of the input; a `Predicate` also combines with others by `&`, `|` and `~`.
    Raises TypeError if the services take different types of input.

        route((from_inside & ~is_busy, tcp.forward("127.0.0.1:8080")), default=close())
    """
    services = [*(service for _, service in routes), default]
    for predicate, _ in routes:
        if not callable(predicate):
            raise TypeError(
                f"route() expects pairs of a predicate and a service, got {predicate!r} as predicate"
            )
    for each in services:
        check_service(each)
    return Route(routes, default, _one_kind(services))


def _one_kind(services: list[Service[RequestT, ResponseT]]) -> type | None:
    kinds = {taken: service for service in services if (taken := input_type_of(service)) is not None}
    if len(kinds) > 1:
        uses = ", ".join(
            f"{display_name(service)} takes {taken.__name__}" for taken, service in kinds.items()
        )
        raise TypeError(f"the services of route() must take the same input: {uses}")
    return next(iter(kinds), None)
