"""What passes, as it passes: the latest exchanges and connections, for who looks at them."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from llama import Bridge, Layer, Meter, Middleware, RefusedError, Relay, layer, ws
from llama._cli.mitm.flow_summary import FlowSummary
from llama._cli.mitm.observers import Observers, _ObservedDoor, observe_front_doors, observe_relays
from llama._core.stack import named_layer
from llama.http import Body, Headers, Request, RequestHandler, Response
from llama.http._messages.error_response import status_of
from llama.mitm._layers.synthetic import SyntheticReason
from llama.mitm._recording.exchange_recorder import method_and_url

State: TypeAlias = Literal["waiting", "moving", "done", "failed", "left"]
"""Without an answer yet; with a body or messages on their way; over; broken off; left by the client."""
_NO_HEADERS = Headers()
_ORDERLY = (1000, 1001, 1005)


class Flow:
    """One exchange, or one connection that is relayed as bytes."""

    __slots__ = (
        "began", "client", "down", "error", "mark", "method", "number", "request", "response", "size", "state",
        "status", "took", "up", "url", "version",
    )  # fmt: skip

    def __init__(self, number: int, method: str, url: str, version: str = "") -> None:
        self.number = number
        self.method = method
        self.url = url
        self.version = version
        self.began = time.perf_counter()
        self.took = 0.0
        """Seconds, once it is over."""
        self.state: State = "waiting"
        self.status = 0
        self.size = 0
        """Bytes of the response's body, or towards the client, so far."""
        self.up = self.down = 0
        """WebSocket messages."""
        self.mark = ""
        self.error = ""
        self.client = ""
        self.request = self.response = _NO_HEADERS

    @property
    def is_complete(self) -> bool:
        return self.took > 0

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return self.took or time.perf_counter() - self.began


class FlowStore:
    """The latest rows, and how much there was in all."""

    def __init__(self, most: int = 500) -> None:
        self.rows: deque[Flow] = deque(maxlen=most)
        self.count = self.going = self.failed = self.size = 0
        self.changed = True

    def begin(self, method: str, url: str, version: str = "") -> Flow:
        """Something begins."""
        self.count += 1
        self.going += 1
        row = Flow(self.count, method, url, version)
        self.rows.append(row)
        self.changed = True
        return row

    def end(self, row: Flow, state: State, error: str = "") -> None:
        """It is over."""
        row.took = time.perf_counter() - row.began or 1e-9
        row.state = state
        row.error = error or row.error
        self.going -= 1
        self.failed += state == "failed"
        self.size += row.size
        self.changed = True

    def fail(self, row: Flow, error: BaseException) -> None:
        """It is over because of this."""
        if isinstance(error, Exception):
            row.status = row.status or status_of(error)
            if isinstance(error, RefusedError):
                row.mark = "blocked"
            self.end(row, "failed", str(error) or type(error).__name__)
        else:
            self.end(row, "left")

    def add_summary(self, seen: FlowSummary) -> None:
        """Something ended before it became an exchange."""
        row = self.begin(seen.method, seen.url)
        row.began, row.status = seen.began, seen.status
        self.end(row, "failed", seen.error)

    def clear(self) -> None:
        """Forget what is over."""
        kept = [row for row in self.rows if not row.is_complete]
        self.rows.clear()
        self.rows.extend(kept)
        self.count = self.going
        self.failed = self.size = 0
        self.changed = True


class Counted(Body):
    """The same body, counted as it passes."""

    __slots__ = ("_board", "_row", "_source")

    def __init__(self, source: Body, row: Flow, board: FlowStore) -> None:
        super().__init__()
        self._source = source
        self._row = row
        self._board = board

    @property
    def trailers(self) -> Headers | None:
        return self._source.trailers

    @property
    def whole(self) -> bool:
        """Whether all of it has passed."""
        return self.ended or self._source.ended or self._row.size == self.length

    def read_chunk_nowait(self) -> bytes:
        data = self._source.read_chunk_nowait()
        self._row.size += len(data)
        return data

    async def read_chunk(self) -> bytes:
        data = await self._source.read_chunk()
        if data:
            self._row.size += len(data)
            self._board.changed = True
        else:
            self.ended = True
        return data

    async def wait_for_data(self) -> None:
        await self._source.wait_for_data()

    async def aclose(self) -> None:
        await self._source.aclose()


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Watched:
    """Puts each exchange on a board."""

    inner: RequestHandler
    board: FlowStore

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "console"

    async def __call__(self, request: Request, /) -> Response:
        board = self.board
        row = board.begin(*method_and_url(request), request.version)
        row.request = request.headers.copy()  # as they came: layers within may change them
        if request.upgrade_protocol:
            request.extensions.set(row)
        if request.client is not None:
            row.client = str(request.client)
        if request._extensions is not None and (door := request._extensions.get(_ObservedDoor)) is not None:
            door.is_seen = True
        try:
            response = await self.inner(request)
        except BaseException as error:
            board.fail(row, error)
            raise
        self._answered(row, response)
        return response

    def _answered(self, row: Flow, response: Response) -> None:
        board = self.board
        row.status = response.status
        row.response = response.headers.copy()
        if (
            response._extensions is not None
            and (mark := response.extensions.get(SyntheticReason)) is not None
        ):
            row.mark = mark
        row.state = "moving"
        board.changed = True
        body = response.body
        if body.buffered is not None or response.upgrade is not None:
            row.size = body.length or 0
            response.on_close(lambda: board.end(row, "failed" if row.error else "done"))
            return
        counted = Counted(body, row, board)
        response.replace_body(counted)
        response.on_close(
            lambda: board.end(row, "done") if counted.whole else board.end(row, "failed", "broken off")
        )


def record_flows(board: FlowStore) -> Middleware[Request, Response]:
    """Put each exchange on a board, with its WebSocket's messages."""

    def count(message: ws.ObservedMessage) -> None:
        row = message.observation.extensions.get(Flow)
        if row is not None:
            row.up += message.from_client
            row.down += not message.from_client
            row.size += 0 if message.from_client else message.size
            board.changed = True

    def closed(observation: ws.Observation) -> None:
        row = observation.extensions.get(Flow)
        if row is not None and observation.close_code not in _ORDERLY:
            row.error = f"closed with {observation.close_code} {observation.close_reason}".rstrip()

    observed = ws.observe(count, on_close=closed, max_size=0)

    def build(inner: RequestHandler) -> RequestHandler:
        return Watched(observed(inner), board)

    return named_layer("console", build, input_type=Request, inner_type=Request)


class _Moved(Meter):
    """Counts what a relayed connection moves."""

    __slots__ = ("_board", "_row")

    def __init__(self, row: Flow, board: FlowStore) -> None:
        self._row = row
        self._board = board

    def on_sent(self, count: int) -> float:
        self._row.size += count
        self._board.changed = True
        return 0.0


def count_relayed(board: FlowStore) -> Layer[Bridge, None, Bridge, None]:
    """Put each connection that is relayed as bytes on a board."""

    @layer
    async def carried(bridge: Bridge, inner: Relay) -> None:
        row = board.begin("PASS", str(bridge.target))
        row.state = "moving"
        meter = _Moved(row, board)
        bridge.client.attach(meter)
        try:
            await inner(bridge)
        except BaseException as error:
            board.fail(row, error)
            raise
        finally:
            bridge.client.detach(meter)
        board.end(row, "done")

    return carried


def flow_observers(board: FlowStore) -> Observers:
    """What puts all that passes on a board."""
    return Observers(
        (record_flows(board),),
        (count_relayed(board),),
        (observe_front_doors(board.add_summary),),
        (observe_relays(board.add_summary),),
    )
