"""Compresses the bodies of responses for the clients that take it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import ClassVar

from llama._errors import ConfigError
from llama._service import Middleware
from llama._stack import factory, named_layer
from llama.http._body import TransformedBody
from llama.http._coding import encoder, known_codings, missing
from llama.http._headers import Headers
from llama.http._message import Exchange, Request, Response

_WORTH_IT = re.compile(
    r"text/.*|application/(?:.*\+)?(?:json|xml|javascript|wasm|graphql|x-ndjson|manifest\+json)"
    r"|image/(?:svg\+xml|bmp)|font/(?:ttf|otf)",
)
_QUALITY = re.compile(r"[ \t]*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)[ \t]*", re.IGNORECASE)
# Given on piece by piece whatever their length; others wait until the compressor has enough.
_STREAMED = frozenset({"text/event-stream", "application/x-ndjson"})


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Compress:
    """Compresses the bodies of responses for the clients that take it."""

    inner: Exchange
    level: int
    minimum: int
    codings: tuple[str, ...]
    is_worth: Callable[[str], bool]

    __takes__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "http.compress()"

    async def __call__(self, request: Request, /) -> Response:
        # Read before the request goes in: layers within may change it.
        method, accepted = request.method, request.headers.get_all("accept-encoding")
        response = await self.inner(request)
        if not self._can_be(response, method):
            return response
        _vary(response.headers)
        coding = preferred(",".join(accepted), self.codings)
        if coding is not None:
            self._compress(response, coding)
        return response

    def _can_be(self, response: Response, method: str) -> bool:
        """Whether another client could get this response compressed."""
        headers = response.headers
        if response.status < 200 or response.status in (204, 205, 206, 304) or response.upgrade is not None:
            return False
        if "content-encoding" in headers or "content-range" in headers:
            return False
        if "no-transform" in headers.tokens("cache-control"):
            return False
        length = response.body.length
        if method == "HEAD" and not length:
            length = _told_length(headers)
        if length is not None and length < self.minimum:
            return False
        return self.is_worth(media_type(headers))

    def _compress(self, response: Response, coding: str) -> None:
        source, headers = response.body, response.headers
        if source.length != 0:  # to HEAD there is usually none: its header is that of GET all the same
            streams = source.length is None or media_type(headers) in _STREAMED
            response.body = TransformedBody(source, encoder(coding, self.level, flushes=streams))
        headers["Content-Encoding"] = coding
        headers.discard(
            "content-length", "accept-ranges", "content-md5", "content-digest", "repr-digest", "digest"
        )
        tag = headers.get("etag")
        if tag is not None and not tag.startswith("W/"):
            headers["ETag"] = f"W/{tag}"


def _told_length(headers: Headers) -> int | None:
    told = headers.get("content-length", "")
    return int(told) if told.isdecimal() and told.isascii() else None


def _vary(headers: Headers) -> None:
    known = headers.tokens("vary")
    if "accept-encoding" not in known and "*" not in known:
        headers.add("Vary", "Accept-Encoding")


def media_type(headers: Headers) -> str:
    """The type of a body without its parameters, in lower case; empty where it is not told."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def is_worth_it(media: str) -> bool:
    """Whether bodies of this type usually become smaller: text, JSON, XML, scripts, SVG and the like."""
    return _WORTH_IT.fullmatch(media) is not None


def preferred(accepted: str, codings: Collection[str]) -> str | None:
    """The coding of ours that a client likes best (RFC 9110 section 12.5.3); None for none."""
    weights: dict[str, float] = {}
    for part in accepted.split(","):
        name, *parameters = part.lower().split(";")
        quality = _QUALITY.fullmatch(parameters[0]) if parameters else None
        if name.strip() and (quality is not None or not parameters):
            weights[name.strip().removeprefix("x-")] = float(quality[1]) if quality is not None else 1.0
    rest = weights.get("*", 0.0)
    best = max(codings, key=lambda coding: weights.get(coding, rest), default="")
    weight = weights.get(best, rest)
    return best if weight > 0 and weight >= weights.get("identity", 0.0) else None


@factory("http.compress")
def compress(
    *,
    level: int = 6,
    minimum: int = 1024,
    codings: tuple[str, ...] | None = None,
    types: Callable[[str], bool] = is_worth_it,
) -> Middleware[Request, Response]:
    """Compress the bodies of responses, as they stream by, by the coding that the client likes best.

    `codings` are those to choose from, the first of them where the client likes several as much: by default zstd
    (built in from Python 3.14 on, else by the extra zstd), br (by the extra brotli), gzip, deflate. `level` is from 1
    (fast) to 9 (small).

    Bodies of fewer than `minimum` bytes stay as they are, and so does what has a Content-Encoding, a range,
    `Cache-Control: no-transform`, or a media type that `types`, a function of its name in lower case, does not take: by
    default text, JSON, XML, scripts, SVG and the like. A body of unknown length can be read by the client piece by
    piece as it comes. The ETag becomes a weak one, digests go, and Vary tells caches.

    Secrets beside text that an attacker chooses can be guessed from the compressed size (BREACH): leave them out.

        stack(http.server(), http.compress(), application)
    """
    if not 1 <= level <= 9:
        raise ConfigError(f"http.compress(level={level}): expected 1 to 9")
    if minimum < 0:
        raise ConfigError(f"http.compress(minimum={minimum}): expected 0 or more bytes")
    chosen = known_codings() if codings is None else _checked(tuple(codings))

    def build(inner: Exchange) -> Exchange:
        return Compress(inner, level, minimum, chosen, types)

    return named_layer("http.compress()", build, takes=Request, gives=Request)


def _checked(codings: tuple[str, ...]) -> tuple[str, ...]:
    known = known_codings()
    for coding in codings:
        if coding not in known and (what := missing(coding)):
            raise ConfigError(f"http.compress(codings={codings!r}): for {coding} {what}")
    if not codings or not set(codings) <= set(known):
        raise ConfigError(f"http.compress(codings={codings!r}): expected some of {', '.join(known)}")
    return codings
