"""Stacks: layers around a service, checked when built, with a one-line description."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast, overload

from llama._core.service import I2, O2, I, Layer, O, Service

C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., object])
T0 = TypeVar("T0")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T6 = TypeVar("T6")
T7 = TypeVar("T7")
T8 = TypeVar("T8")
T9 = TypeVar("T9")
T10 = TypeVar("T10")
T11 = TypeVar("T11")
T12 = TypeVar("T12")
T13 = TypeVar("T13")
T14 = TypeVar("T14")
T15 = TypeVar("T15")
T16 = TypeVar("T16")


def factory(name: str, makes: str = "layer") -> Callable[[F], F]:
    """Mark a function as the factory of a layer or a service, so that a stack detects a missing call."""

    def mark(function: F) -> F:
        function.__llama_factory__ = f"{name} is a {makes} factory: call it"  # type: ignore[attr-defined]
        return function

    return mark


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class _Layer(Generic[I2, O2, I, O]):
    """The layer that a factory returns: it builds the service, and knows its name and the types of both sides."""

    name: str
    build: Callable[[Service[I2, O2]], Service[I, O]]
    takes: type | None
    gives: type | None

    def __call__(self, inner: Service[I2, O2], /) -> Service[I, O]:
        _check_inner(self, inner)
        return self.build(inner)

    def __repr__(self) -> str:
        return self.name


def named_layer(
    name: str,
    build: Callable[[Service[I2, O2]], Service[I, O]],
    *,
    takes: type | None = None,
    gives: type | None = None,
) -> Layer[I2, O2, I, O]:
    """Return a layer with a name, which rejects a service of the wrong type when the stack is built.

    `takes` is the type of its input, `gives` the type that it passes to the inner service; None matches any.
    """
    made: _Layer[I2, O2, I, O] = _Layer(name, build, takes, gives)
    return made


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class _Wrapped(Generic[I2, O2, I, O]):
    inner: Service[I2, O2]
    function: Callable[[I, Service[I2, O2]], Awaitable[O]]
    takes: type | None

    @property
    def __takes__(self) -> type | None:
        return self.takes

    def __call__(self, input: I, /) -> Awaitable[O]:
        return self.function(input, self.inner)

    def __repr__(self) -> str:
        return _function_name(self.function)


def layer(function: Callable[[I, Service[I2, O2]], Awaitable[O]], /) -> Layer[I2, O2, I, O]:
    """Make a layer from an async function of the input and the inner service."""
    takes = _annotated_input(function)

    def build(inner: Service[I2, O2]) -> Service[I, O]:
        made: _Wrapped[I2, O2, I, O] = _Wrapped(inner, function, takes)
        return made

    made: _Layer[I2, O2, I, O] = _Layer(_function_name(function), build, takes, None)
    return made


def _annotated_input(function: Callable[..., object]) -> type | None:
    try:
        first = next(iter(inspect.signature(function, eval_str=True).parameters.values()), None)
    except (NameError, TypeError, ValueError):
        return None
    return first.annotation if first is not None and first.annotation in _kinds else None


_kinds: set[type] = set()


def kind(cls: type[C]) -> type[C]:
    """Declare a type that services take, such as Stream: stacks check these types."""
    _kinds.add(cls)
    return cls


@overload
def stack(service: T0, /) -> T0: ...
@overload
def stack(l1: Callable[[T0], T1], service: T0, /) -> T1: ...
@overload
def stack(l2: Callable[[T1], T2], l1: Callable[[T0], T1], service: T0, /) -> T2: ...
@overload
def stack(l3: Callable[[T2], T3], l2: Callable[[T1], T2], l1: Callable[[T0], T1], service: T0, /) -> T3: ...
@overload
def stack(
    l4: Callable[[T3], T4],
    l3: Callable[[T2], T3],
    l2: Callable[[T1], T2],
    l1: Callable[[T0], T1],
    service: T0,
    /,
) -> T4: ...
@overload
def stack(
    l5: Callable[[T4], T5],
    l4: Callable[[T3], T4],
    l3: Callable[[T2], T3],
    l2: Callable[[T1], T2],
    l1: Callable[[T0], T1],
    service: T0,
    /,
) -> T5: ...
@overload
def stack(
    l6: Callable[[T5], T6],
    l5: Callable[[T4], T5],
    l4: Callable[[T3], T4],
    l3: Callable[[T2], T3],
    l2: Callable[[T1], T2],
    l1: Callable[[T0], T1],
    service: T0,
    /,
) -> T6: ...
@overload
def stack(
    l7: Callable[[T6], T7],
    l6: Callable[[T5], T6],
    l5: Callable[[T4], T5],
    l4: Callable[[T3], T4],
    l3: Callable[[T2], T3],
    l2: Callable[[T1], T2],
    l1: Callable[[T0], T1],
    service: T0,
    /,
) -> T7: ...
@overload
def stack(
    l8: Callable[[T7], T8],
    l7: Callable[[T6], T7],
    l6: Callable[[T5], T6],
    l5: Callable[[T4], T5],
    l4: Callable[[T3], T4],
    l3: Callable[[T2], T3],
    l2: Callable[[T1], T2],
    l1: Callable[[T0], T1],
    service: T0,
    /,
) -> T8: ...
@overload
def stack(
    l9: Callable[[T8], T9],
    l8: Callable[[T7], T8],
    l7: Callable[[T6], T7],
    l6: Callable[[T5], T6],
    l5: Callable[[T4], T5],
    l4: Callable[[T3], T4],
    l3: Callable[[T2], T3],
    l2: Callable[[T1], T2],
    l1: Callable[[T0], T1],
    service: T0,
    /,
) -> T9: ...
@overload
def stack(
    l10: Callable[[T9], T10],
    l9: Callable[[T8], T9],
    l8: Callable[[T7], T8],
    l7: Callable[[T6], T7],
    l6: Callable[[T5], T6],
    l5: Callable[[T4], T5],
    l4: Callable[[T3], T4],
    l3: Callable[[T2], T3],
    l2: Callable[[T1], T2],
    l1: Callable[[T0], T1],
    service: T0,
    /,
) -> T10: ...
@overload
def stack(
    l11: Callable[[T10], T11],
    l10: Callable[[T9], T10],
    l9: Callable[[T8], T9],
    l8: Callable[[T7], T8],
    l7: Callable[[T6], T7],
    l6: Callable[[T5], T6],
    l5: Callable[[T4], T5],
    l4: Callable[[T3], T4],
    l3: Callable[[T2], T3],
    l2: Callable[[T1], T2],
    l1: Callable[[T0], T1],
    service: T0,
    /,
) -> T11: ...
@overload
def stack(
    l12: Callable[[T11], T12],
    l11: Callable[[T10], T11],
    l10: Callable[[T9], T10],
    l9: Callable[[T8], T9],
    l8: Callable[[T7], T8],
    l7: Callable[[T6], T7],
    l6: Callable[[T5], T6],
    l5: Callable[[T4], T5],
    l4: Callable[[T3], T4],
    l3: Callable[[T2], T3],
    l2: Callable[[T1], T2],
    l1: Callable[[T0], T1],
    service: T0,
    /,
) -> T12: ...
@overload
def stack(
    l13: Callable[[T12], T13],
    l12: Callable[[T11], T12],
    l11: Callable[[T10], T11],
    l10: Callable[[T9], T10],
    l9: Callable[[T8], T9],
    l8: Callable[[T7], T8],
    l7: Callable[[T6], T7],
    l6: Callable[[T5], T6],
    l5: Callable[[T4], T5],
    l4: Callable[[T3], T4],
    l3: Callable[[T2], T3],
    l2: Callable[[T1], T2],
    l1: Callable[[T0], T1],
    service: T0,
    /,
) -> T13: ...
@overload
def stack(
    l14: Callable[[T13], T14],
    l13: Callable[[T12], T13],
    l12: Callable[[T11], T12],
    l11: Callable[[T10], T11],
    l10: Callable[[T9], T10],
    l9: Callable[[T8], T9],
    l8: Callable[[T7], T8],
    l7: Callable[[T6], T7],
    l6: Callable[[T5], T6],
    l5: Callable[[T4], T5],
    l4: Callable[[T3], T4],
    l3: Callable[[T2], T3],
    l2: Callable[[T1], T2],
    l1: Callable[[T0], T1],
    service: T0,
    /,
) -> T14: ...
@overload
def stack(
    l15: Callable[[T14], T15],
    l14: Callable[[T13], T14],
    l13: Callable[[T12], T13],
    l12: Callable[[T11], T12],
    l11: Callable[[T10], T11],
    l10: Callable[[T9], T10],
    l9: Callable[[T8], T9],
    l8: Callable[[T7], T8],
    l7: Callable[[T6], T7],
    l6: Callable[[T5], T6],
    l5: Callable[[T4], T5],
    l4: Callable[[T3], T4],
    l3: Callable[[T2], T3],
    l2: Callable[[T1], T2],
    l1: Callable[[T0], T1],
    service: T0,
    /,
) -> T15: ...
@overload
def stack(
    l16: Callable[[T15], T16],
    l15: Callable[[T14], T15],
    l14: Callable[[T13], T14],
    l13: Callable[[T12], T13],
    l12: Callable[[T11], T12],
    l11: Callable[[T10], T11],
    l10: Callable[[T9], T10],
    l9: Callable[[T8], T9],
    l8: Callable[[T7], T8],
    l7: Callable[[T6], T7],
    l6: Callable[[T5], T6],
    l5: Callable[[T4], T5],
    l4: Callable[[T3], T4],
    l3: Callable[[T2], T3],
    l2: Callable[[T1], T2],
    l1: Callable[[T0], T1],
    service: T0,
    /,
) -> T16: ...
def stack(*parts: Any) -> Any:
    """Wrap a service in layers, in the order in which data flows: outermost first, the service last.

    Raises TypeError for an invalid stack: a factory that was not called, a layer without a service, or
    types that do not match.
    """
    if not parts:
        raise TypeError("stack() takes layers and, last, a service")
    *layers, service = parts
    for part in parts:
        _check_part(part)
    check_service(service)
    for each in reversed(layers):
        service = _apply(each, service)
    return service


def _apply(each: Callable[[Any], Any], inner: Any) -> Any:
    if not _is_layer(each) and _taker(each) is not None:
        raise TypeError(f"{name_of(each)} is a service: only the last part of a stack can be one")
    service = each(inner)
    if inspect.iscoroutine(service):
        service.close()
        raise TypeError(
            f"{name_of(each)} is a service, not a layer: only the last part of a stack can be one"
        )
    if not callable(service):
        raise TypeError(f"{name_of(each)} is not a layer: it returned {service!r}, not a service")
    return service


def check_service(service: object) -> None:
    """Raise TypeError unless this can be a service: not a layer, not an uncalled factory, but callable."""
    _check_part(service)
    if _is_layer(service):
        raise TypeError(f"{service!r} is a layer: put a service after it")


def _is_layer(part: object) -> bool:
    return isinstance(part, _Layer)


def check_takes(service: object, kind: type, who: str) -> None:
    """Raise TypeError if a service declares another input type than `kind`, which `who` passes to it."""
    check_service(service)
    taker = _taker(service)
    if taker is not None and taker[1] is not kind:
        raise TypeError(f"{who} gives {kind.__name__}, {name_of(taker[0])} takes {taker[1].__name__}")


def _check_part(part: object) -> None:
    forgotten = getattr(part, "__llama_factory__", None)
    if forgotten is not None:
        raise TypeError(forgotten)
    if not callable(part):
        raise TypeError(f"{part!r} is neither a layer nor a service: it cannot be called")


def _check_inner(outer: _Layer[Any, Any, Any, Any], inner: object) -> None:
    check_service(inner)
    taker = _taker(inner)
    if outer.gives is not None and taker is not None and taker[1] is not outer.gives:
        raise TypeError(
            f"{outer!r} gives {outer.gives.__name__}, {name_of(taker[0])} takes {taker[1].__name__}: swap them"
        )


def kind_taken(service: object) -> type | None:
    """Return the declared input type of a service, or of its inner service; None if unknown."""
    taker = _taker(service)
    return None if taker is None else taker[1]


def _taker(service: object) -> tuple[object, type] | None:
    """Return the first service of the chain that declares its input type, and that type; None if there is none."""
    while service is not None:
        known = getattr(service, "__takes__", None)
        if isinstance(known, type):
            return service, known
        if isinstance(service, _Wrapped):  # an unannotated function may change the type
            return None
        service = getattr(service, "inner", None)
    return None


def describe(service: object) -> str:
    """Return the chain of services in one line, outermost first: `tcp.limit(10000) > echo`."""
    names: list[str] = []
    while service is not None:
        names.append(name_of(service))
        service = getattr(service, "inner", None)
    return " > ".join(names)


def name_of(service: object) -> str:
    """Return the name of one service or layer, for messages."""
    if inspect.isroutine(service):
        return _function_name(service)
    if type(service).__repr__ is object.__repr__:
        return type(service).__name__
    return repr(service)


def _function_name(function: object) -> str:
    name = cast("str", getattr(function, "__qualname__", type(function).__name__))
    return name.rpartition("<locals>.")[2]


def spoken(service: object) -> tuple[str, ...]:
    """Return the ALPN protocols of the first service in the chain that declares any."""
    while service is not None:
        found: tuple[str, ...] | None = getattr(service, "__alpn__", None)
        if found is not None:
            return found
        service = getattr(service, "inner", None)
    return ()
