"""Edits encoded bodies: decodes them, edits them, and encodes them again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llama._core.errors import LlamaError, ProtocolError
from llama.http._codings.transform import MAX_OUTPUT, Transform, decoders, encoder

MAX_CODINGS = 3
MAX_HELD = 1 << 16
_LEVEL = 6


class Pipeline:
    """Transforms in a row, with bounded output pieces.

    Errors get `status`, where it is set.
    """

    __slots__ = ("_stages", "_status")

    def __init__(self, stages: Sequence[Transform], status: int | None = None) -> None:
        self._stages = stages
        self._status = status

    def update(self, data: bytes) -> bytes:
        try:
            return self._push(data, 0) or self._pull()
        except LlamaError as error:
            raise self._with_status(error) from None

    def pending(self) -> bytes:
        try:
            return self._pull()
        except LlamaError as error:
            raise self._with_status(error) from None

    def flush(self) -> bytes:
        """Flush each stage into those after it."""
        out: list[bytes] = []
        try:
            for number, stage in enumerate(self._stages):
                out.append(self._push(stage.flush(), number + 1))
                while part := self._pull():
                    out.append(part)
        except LlamaError as error:
            raise self._with_status(error) from None
        return b"".join(out)

    def _push(self, data: bytes, number: int) -> bytes:
        for stage in self._stages[number:]:
            if not data:
                break
            data = stage.update(data)
        return data

    def _pull(self) -> bytes:
        """The next output of what the stages hold: that of the last ones first."""
        number = len(self._stages)
        while number:
            number -= 1
            if part := self._stages[number].pending():
                if part := self._push(part, number + 1):
                    return part
                number = len(self._stages)
        return b""

    def _with_status(self, error: LlamaError) -> LlamaError:
        if self._status is not None:
            error.status = self._status
        return error


class RecodeTransform:
    """Decodes, edits and encodes again. Input that cannot be decoded passes unchanged.

    It holds the input until the first decoded output, at most 64 KiB, so that it can still pass it unchanged. An
    error after that is raised. `on_error` is called with either error.
    """

    __slots__ = ("_decode", "_edit", "_held", "_length", "_on_error", "_passes_raw", "_received")

    def __init__(
        self,
        decode: Transform,
        edit: Transform,
        length: int | None,
        on_error: Callable[[LlamaError, bool], None],
    ) -> None:
        self._decode = decode
        self._edit = edit
        self._held: bytes | None = b""
        self._length = length
        self._on_error = on_error
        self._passes_raw = False
        self._received = 0

    def update(self, data: bytes) -> bytes:
        self._received += len(data)
        if self._passes_raw:
            return data
        if self._held is None:
            return self._feed(data)
        self._held += data
        try:
            data = self._decode_first(data)
        except LlamaError as error:
            return self._pass_raw(error)
        if not data and len(self._held) <= MAX_HELD:
            return b""
        self._held = None
        return (self._edit.update(data) if data else b"") or self.pending()

    def _decode_first(self, data: bytes) -> bytes:
        """Decode all of the input, up to a bound; check the end too where this is the whole body."""
        out = [self._decode.update(data)]
        size = len(out[0])
        while size < MAX_OUTPUT:
            if not (part := self._decode.pending()):
                if self._received == self._length:
                    self._decode.flush()
                break
            size += len(part)
            out.append(part)
        return b"".join(out)

    def _feed(self, data: bytes) -> bytes:
        try:
            data = self._decode.update(data)
        except LlamaError as error:
            self._on_error(error, False)
            raise
        return (self._edit.update(data) if data else b"") or self.pending()

    def pending(self) -> bytes:
        if self._passes_raw or self._held is not None:
            return b""
        if part := self._edit.pending():
            return part
        try:
            while part := self._decode.pending():
                if part := self._edit.update(part):
                    return part
        except LlamaError as error:
            self._on_error(error, False)
            raise
        return b""

    def flush(self) -> bytes:
        if self._passes_raw or not self._received:
            return b""
        try:
            self._decode.flush()
        except LlamaError as error:
            if self._held is not None:
                return self._pass_raw(error)
            self._on_error(error, False)
            raise
        return self._edit.flush()

    def _pass_raw(self, error: LlamaError) -> bytes:
        self._on_error(error, True)
        held, self._held = self._held, None
        self._passes_raw = True
        return held or b""


class FailingTransform:
    """Raises an error for any input."""

    __slots__ = ("_error",)

    def __init__(self, error: LlamaError) -> None:
        self._error = error

    def update(self, data: bytes) -> bytes:
        raise self._error

    def pending(self) -> bytes:
        return b""

    def flush(self) -> bytes:
        return b""


def bounded_decoder(codings: Sequence[str], status: int) -> Pipeline:
    """The decoder of these content codings; ProtocolError for an unknown one or too many."""
    if len(codings) > MAX_CODINGS:
        raise ProtocolError(f"{len(codings)} content codings are over the limit of {MAX_CODINGS}", status=415)
    return Pipeline(decoders(codings), status)


def encoders(codings: Sequence[str]) -> list[Transform]:
    """The encoders of these content codings, in order of use. Each input can be decoded as soon as it is encoded."""
    return [encoder(coding.removeprefix("x-"), _LEVEL, flushes=True) for coding in codings]
