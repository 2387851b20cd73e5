"""Bodies of replayed messages: encoded again, from memory or from files, or interleaved with the request."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from llama._core.errors import RefusedError
from llama.http import Body, Headers
from llama.http._codings.transform import encoder, known_codings
from llama.http._messages.body import TransformedBody
from llama.mitm._records import RecordedBody

_PIECE = 1 << 18
_LEVEL = 6


class FileBody(Body):
    """A body from a file, opened when it is first read."""

    __slots__ = ("_file", "_path")

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(size)
        self._path = path
        self._file: BinaryIO | None = None

    async def read_chunk(self) -> bytes:
        if self.ended:
            return b""
        if self._file is None:
            self._file = self._path.open("rb")
        data = self._file.read(_PIECE)
        if not data:
            await self.aclose()
        return data

    async def aclose(self) -> None:
        self.ended = True
        file, self._file = self._file, None
        if file is not None:
            file.close()


def replayed_body(recorded: RecordedBody, headers: Headers) -> Body | bytes:
    """The recorded bytes with the Content-Encoding of `headers`, which is removed if it is not known here."""
    codings = [] if recorded.encoded else _codings(headers)
    if codings is None and not recorded.size:  # of a response to HEAD
        return b""
    if codings is None:
        headers.discard("content-encoding")
        codings = []
    if recorded.file is not None:
        body: Body = FileBody(recorded.file, recorded.size)
        for coding in codings:
            body = TransformedBody(body, encoder(coding, _LEVEL, flushes=False))
        return body
    data = recorded.data or b""
    for coding in codings if data else ():
        transform = encoder(coding, _LEVEL, flushes=False)
        data = transform.update(data) + transform.flush()
    return data


def _codings(headers: Headers) -> list[str] | None:
    """The content codings to apply, in order; None if one of them is not known."""
    names = [each.removeprefix("x-") for each in headers.tokens("content-encoding") if each != "identity"]
    return names if set(names) <= set(known_codings()) else None


def can_continue(recorded: RecordedBody, data: bytes) -> bool:
    """Whether `data` can be the beginning of a recorded body, or begins with an incomplete one."""
    expected = recorded.read()
    incomplete = recorded.truncated or not recorded.complete
    return expected.startswith(data) or (incomplete and data.startswith(expected))


class RequestProgress:
    """Reads a replayed request as far as its response needs it, and compares it with the recorded one."""

    __slots__ = ("_body", "_complete", "_ended", "_expected", "_label", "passed")

    def __init__(self, body: Body, data: bytes, expected: RecordedBody | None, label: str) -> None:
        self._body = body
        self._expected = None if expected is None else expected.read()
        self._complete = expected is not None and expected.complete and not expected.truncated
        self._label = label
        self._ended = False
        self.passed = len(data)

    async def reach(self, count: int) -> None:
        """Read `count` bytes, or all of it for -1; RefusedError (502) if they differ from the recorded ones."""
        while not self._ended and (count < 0 or self.passed < count):
            chunk = await self._body.read_chunk()
            self._ended = not chunk
            self._compare(chunk)
            self.passed += len(chunk)

    def _compare(self, chunk: bytes) -> None:
        expected = self._expected
        if expected is None:
            return
        there = expected[self.passed : self.passed + len(chunk)]
        if chunk:
            equal = chunk == there if self._complete else chunk.startswith(there)
        else:
            equal = self.passed == len(expected) or not self._complete
        if not equal:
            raise RefusedError(f"the body of {self._label} differs from the recorded one", status=502)


class InterleavedBody(Body):
    """A recorded response body whose pieces come when the request has got as far as it had."""

    __slots__ = ("_data", "_pairs", "_progress", "_sent", "_trailers")

    def __init__(
        self, recorded: RecordedBody, pairs: list[tuple[int, int]], progress: RequestProgress
    ) -> None:
        super().__init__()
        self._data = memoryview(recorded.read())
        self._trailers = recorded.trailers
        self._pairs = pairs[1:]
        self._progress = progress
        self._sent = 0

    @property
    def trailers(self) -> Headers | None:
        return self._trailers

    async def read_chunk(self) -> bytes:
        if self.ended:
            return b""
        while self._pairs and self._pairs[0][0] <= self._sent:
            await self._progress.reach(self._pairs.pop(0)[1])
        end = self._pairs[0][0] if self._pairs else len(self._data)
        end = min(end, len(self._data), self._sent + _PIECE)
        data = bytes(self._data[self._sent : end])
        self._sent = end
        if not data:
            while self._pairs:
                await self._progress.reach(self._pairs.pop(0)[1])
            self.ended = True
        return data

    async def aclose(self) -> None:
        self.ended = True
        self._pairs = []
