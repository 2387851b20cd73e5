"""Stacks: layers around a service, checked when built, with a one-line description."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast, overload

from llama._core.service import InnerRequestT, InnerResponseT, Layer, RequestT, ResponseT, Service

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


def layer_factory(name: str, makes: str = "layer") -> Callable[[F], F]:
    """Mark a function as the factory of a layer or a service, so that a stack detects a missing call."""

    def mark(function: F) -> F:
        function.__llama_factory__ = f"{name} is a {makes} factory: call it"  # type: ignore[attr-defined]
        return function

    return mark


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class _NamedLayer(Generic[InnerRequestT, InnerResponseT, RequestT, ResponseT]):
    """The layer that a factory returns: it builds the service, and knows its name and the types of both sides."""

    name: str
    build: Callable[[Service[InnerRequestT, InnerResponseT]], Service[RequestT, ResponseT]]
    input_type: type | None
    inner_type: type | None

    def __call__(self, inner: Service[InnerRequestT, InnerResponseT], /) -> Service[RequestT, ResponseT]:
        _check_inner(self, inner)
        return self.build(inner)

    def __repr__(self) -> str:
        return self.name


def named_layer(
    name: str,
    build: Callable[[Service[InnerRequestT, InnerResponseT]], Service[RequestT, ResponseT]],
    *,
    input_type: type | None = None,
    inner_type: type | None = None,
) -> Layer[InnerRequestT, InnerResponseT, RequestT, ResponseT]:
    """Return a layer with a name, which rejects a service of the wrong type when the stack is built.

    `input_type` is the type of its input, `inner_type` the type that it passes to the inner service; None matches any.
    """
    made: _NamedLayer[InnerRequestT, InnerResponseT, RequestT, ResponseT] = _NamedLayer(
        name, build, input_type, inner_type
    )
    return made


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class _FunctionService(Generic[InnerRequestT, InnerResponseT, RequestT, ResponseT]):
    inner: Service[InnerRequestT, InnerResponseT]
    function: Callable[[RequestT, Service[InnerRequestT, InnerResponseT]], Awaitable[ResponseT]]
    input_type: type | None

    @property
    def __input_type__(self) -> type | None:
        return self.input_type

    def __call__(self, input: RequestT, /) -> Awaitable[ResponseT]:
        return self.function(input, self.inner)

    def __repr__(self) -> str:
        return _function_name(self.function)


def layer(
    function: Callable[[RequestT, Service[InnerRequestT, InnerResponseT]], Awaitable[ResponseT]], /
) -> Layer[InnerRequestT, InnerResponseT, RequestT, ResponseT]:
    """Make a layer from an async function of the input and the inner service."""
    takes = _annotated_input_type(function)

    def build(inner: Service[InnerRequestT, InnerResponseT]) -> Service[RequestT, ResponseT]:
        made: _FunctionService[InnerRequestT, InnerResponseT, RequestT, ResponseT] = _FunctionService(
            inner, function, takes
        )
        return made

    made: _NamedLayer[InnerRequestT, InnerResponseT, RequestT, ResponseT] = _NamedLayer(
        _function_name(function), build, takes, None
    )
    return made


def _annotated_input_type(function: Callable[..., object]) -> type | None:
    try:
        first = next(iter(inspect.signature(function, eval_str=True).parameters.values()), None)
    except (NameError, TypeError, ValueError):
        return None
    return first.annotation if first is not None and first.annotation in _input_types else None


_input_types: set[type] = set()


def register_input_type(cls: type[C]) -> type[C]:
    """Declare a type that services take, such as Stream: stacks check these types."""
    _input_types.add(cls)
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
    if not _is_layer(each) and _find_input_type(each) is not None:
        raise TypeError(f"{display_name(each)} is a service: only the last part of a stack can be one")
    service = each(inner)
    if inspect.iscoroutine(service):
        service.close()
        raise TypeError(
            f"{display_name(each)} is a service, not a layer: only the last part of a stack can be one"
        )
    if not callable(service):
        raise TypeError(f"{display_name(each)} is not a layer: it returned {service!r}, not a service")
    return service


def check_service(service: object) -> None:
    """Raise TypeError unless this can be a service: not a layer, not an uncalled factory, but callable."""
    _check_part(service)
    if _is_layer(service):
        raise TypeError(f"{service!r} is a layer: put a service after it")


def _is_layer(part: object) -> bool:
    return isinstance(part, _NamedLayer)


def check_accepts(service: object, input_type: type, who: str) -> None:
    """Raise TypeError if a service declares another input type than `kind`, which `who` passes to it."""
    check_service(service)
    taker = _find_input_type(service)
    if taker is not None and taker[1] is not input_type:
        raise TypeError(
            f"{who} gives {input_type.__name__}, {display_name(taker[0])} takes {taker[1].__name__}"
        )


def _check_part(part: object) -> None:
    forgotten = getattr(part, "__llama_factory__", None)
    if forgotten is not None:
        raise TypeError(forgotten)
    if not callable(part):
        raise TypeError(f"{part!r} is neither a layer nor a service: it cannot be called")


def _check_inner(outer: _NamedLayer[Any, Any, Any, Any], inner: object) -> None:
    check_service(inner)
    taker = _find_input_type(inner)
    if outer.inner_type is not None and taker is not None and taker[1] is not outer.inner_type:
        raise TypeError(
            f"{outer!r} gives {outer.inner_type.__name__}, "
            f"{display_name(taker[0])} takes {taker[1].__name__}: swap them"
        )


def input_type_of(service: object) -> type | None:
    """Return the declared input type of a service, or of its inner service; None if unknown."""
    taker = _find_input_type(service)
    return None if taker is None else taker[1]


def _find_input_type(service: object) -> tuple[object, type] | None:
    """Return the first service of the chain that declares its input type, and that type; None if there is none."""
    while service is not None:
        known = getattr(service, "__input_type__", None)
        if isinstance(known, type):
            return service, known
        if isinstance(service, _FunctionService):  # an unannotated function may change the type
            return None
        service = getattr(service, "inner", None)
    return None


def describe(service: object) -> str:
    """Return the chain of services in one line, outermost first: `tcp.connection_limit(10000) > echo`."""
    names: list[str] = []
    while service is not None:
        names.append(display_name(service))
        service = getattr(service, "inner", None)
    return " > ".join(names)


def display_name(service: object) -> str:
    """Return the name of one service or layer, for messages."""
    if inspect.isroutine(service):
        return _function_name(service)
    if type(service).__repr__ is object.__repr__:
        return type(service).__name__
    return repr(service)


def _function_name(function: object) -> str:
    name = cast("str", getattr(function, "__qualname__", type(function).__name__))
    return name.rpartition("<locals>.")[2]


def alpn_protocols(service: object) -> tuple[str, ...]:
    """Return the ALPN protocols of the first service in the chain that declares any."""
    while service is not None:
        found: tuple[str, ...] | None = getattr(service, "__alpn__", None)
        if found is not None:
            return found
        service = getattr(service, "inner", None)
    return ()
