"""Compresses response bodies for clients that accept it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._codings.accept import coding_weights
from llama.http._codings.transform import encoder, explain_unsupported, known_codings
from llama.http._messages.body import TransformedBody
from llama.http._messages.headers import Headers
from llama.http._messages.message import Request, RequestHandler, Response

_COMPRESSIBLE = re.compile(
    r"text/.*|application/(?:.*\+)?(?:json|xml|javascript|wasm|graphql|x-ndjson|manifest\+json)"
    r"|image/(?:svg\+xml|bmp)|font/(?:ttf|otf)",
)
# Flushed after each chunk even if their length is known; others wait until the compressor has enough data.
_STREAMED = frozenset({"text/event-stream", "application/x-ndjson"})


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Compress:
    """Compresses response bodies for clients that accept it."""

    inner: RequestHandler
    level: int
    minimum: int
    codings: tuple[str, ...]
    is_compressible: Callable[[str], bool]

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "http.compress()"

    async def __call__(self, request: Request, /) -> Response:
        # Read first: inner layers may change the request.
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
        """Return whether the response could be compressed for some client, so that it needs Vary."""
        headers = response.headers
        if response.status < 200 or response.status in (204, 205, 206, 304) or response.upgrade is not None:
            return False
        if "content-encoding" in headers or "content-range" in headers:
            return False
        if "no-transform" in headers.tokens("cache-control"):
            return False
        length = response.body.length
        if method == "HEAD" and not length:
            length = _declared_length(headers)
        if length is not None and length < self.minimum:
            return False
        return self.is_compressible(media_type(headers))

    def _compress(self, response: Response, coding: str) -> None:
        source, headers = response.body, response.headers
        if source.length != 0:  # a response to HEAD usually has no body, but the same fields as for GET
            streams = source.length is None or media_type(headers) in _STREAMED
            response.body = TransformedBody(source, encoder(coding, self.level, flushes=streams))
        headers["Content-Encoding"] = coding
        headers.discard(
            "content-length", "accept-ranges", "content-md5", "content-digest", "repr-digest", "digest"
        )
        tag = headers.get("etag")
        if tag is not None and not tag.startswith("W/"):
            headers["ETag"] = f"W/{tag}"


def _declared_length(headers: Headers) -> int | None:
    told = headers.get("content-length", "")
    return int(told) if told.isdecimal() and told.isascii() else None


def _vary(headers: Headers) -> None:
    known = headers.tokens("vary")
    if "accept-encoding" not in known and "*" not in known:
        headers.add("Vary", "Accept-Encoding")


def media_type(headers: Headers) -> str:
    """Return the media type without parameters, in lower case; empty without Content-Type."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def is_compressible_type(media: str) -> bool:
    """Return whether bodies of this type usually compress well: text, JSON, XML, scripts, SVG and the like."""
    return _COMPRESSIBLE.fullmatch(media) is not None


def preferred(accepted: str, codings: Collection[str]) -> str | None:
    """Return the available coding that the client prefers (RFC 9110 section 12.5.3), or None."""
    weights = coding_weights(accepted)
    rest = weights.get("*", 0.0)
    best = max(codings, key=lambda coding: weights.get(coding, rest), default="")
    weight = weights.get(best, rest)
    return best if weight > 0 and weight >= weights.get("identity", 0.0) else None


@layer_factory("http.compress")
def compress(
    *,
    level: int = 6,
    minimum: int = 1024,
    codings: tuple[str, ...] | None = None,
    types: Callable[[str], bool] = is_compressible_type,
) -> Middleware[Request, Response]:
    """Compress response bodies while they stream, with the content coding that the client prefers.

    `codings` lists the codings to use; the first one wins if the client accepts several with the same weight. The
    default is zstd (built in since Python 3.14, else with the extra zstd), br (with the extra brotli), gzip and
    deflate. `level` ranges from 1 (fast) to 9 (small).

    A response is not compressed if its body is shorter than `minimum` bytes, if it has Content-Encoding, Content-Range
    or `Cache-Control: no-transform`, or if `types` returns False for its media type (in lower case, without
    parameters); the default accepts text, JSON, XML, scripts, SVG and the like. A body of unknown length is flushed
    after each chunk, so that the client can read it as it arrives. The ETag becomes weak, digests are removed, and
    `Vary: Accept-Encoding` is added.

    Do not compress responses that contain both secrets and text that an attacker chooses: the compressed size reveals
    the secrets (BREACH).

        stack(http.server(), http.compress(), application)
    """
    if not 1 <= level <= 9:
        raise ConfigError(f"http.compress(level={level}): expected 1 to 9")
    if minimum < 0:
        raise ConfigError(f"http.compress(minimum={minimum}): expected 0 or more bytes")
    chosen = known_codings() if codings is None else _checked(tuple(codings))

    def build(inner: RequestHandler) -> RequestHandler:
        return Compress(inner, level, minimum, chosen, types)

    return named_layer("http.compress()", build, input_type=Request, inner_type=Request)


def _checked(codings: tuple[str, ...]) -> tuple[str, ...]:
    known = known_codings()
    for coding in codings:
        if coding not in known and (what := explain_unsupported(coding)):
            raise ConfigError(f"http.compress(codings={codings!r}): for {coding} {what}")
    if not codings or not set(codings) <= set(known):
        raise ConfigError(f"http.compress(codings={codings!r}): expected one or more of {', '.join(known)}")
    return codings
