"""The lifespan of ASGI applications: run by the stack that holds them."""

import asyncio
import socket
from typing import Any

import pytest

from llama import asgi, serve, stack
from llama._core.errors import LlamaError
from llama.http import server
from tests.asgi.test_http import hello
from tests.http.serving import last


class App:
    """Does as it is told, and keeps what happened."""

    def __init__(self, *answers: Any, state: bool = False) -> None:
        self.answers = answers
        self.state = state
        self.seen: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.seen.append(f"request {scope['state']}")
            scope["state"]["mine"] = True
            await hello(scope, receive, send)
            return
        for answer in self.answers:
            self.seen.append((await receive())["type"])
            if isinstance(answer, Exception):
                raise answer
            if self.state:
                scope["state"]["database"] = "open"
            await send(answer)


STARTED: Any = {"type": "lifespan.startup.complete"}
STOPPED: Any = {"type": "lifespan.shutdown.complete"}


def run(app: Any, requests: int = 1) -> list[bytes]:
    """Serve the application, ask it, and stop."""

    def ask(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(last())
            data = b""
            while more := client.recv(65536):
                data += more
            return data

    async def main() -> list[bytes]:
        async with serve(stack(server(), asgi(app)), listen="127.0.0.1:0") as serving:
            return [await asyncio.to_thread(ask, serving.port) for _ in range(requests)]

    return asyncio.run(main())


def test_an_application_starts_before_the_first_request_and_stops_after_the_last() -> None:
    app = App(STARTED, STOPPED)
    assert run(app)[0].endswith(b"hello")
    assert app.seen == ["lifespan.startup", "request {}", "lifespan.shutdown"]


def test_each_request_gets_a_copy_of_the_state() -> None:
    app = App(STARTED, STOPPED, state=True)
    run(app, 2)
    assert app.seen[1:3] == ["request {'database': 'open'}"] * 2


@pytest.mark.parametrize("answers", [(), (RuntimeError("no lifespan here"),)])
def test_an_application_without_a_lifespan_is_served_all_the_same(answers: Any) -> None:
    assert run(App(*answers))[0].endswith(b"hello")


def test_an_application_that_cannot_start_keeps_the_server_from_starting() -> None:
    with pytest.raises(LlamaError, match="failed to start: no database"):
        run(App({"type": "lifespan.startup.failed", "message": "no database"}))


def test_an_application_that_cannot_stop_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    run(App(STARTED, {"type": "lifespan.shutdown.failed", "message": "stuck"}))
    assert "failed to stop: stuck" in caplog.text


def test_a_lifespan_that_fails_later_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert run(App(STARTED, RuntimeError("later")))[0].endswith(b"hello")
    assert "lifespan failed" in caplog.text


def test_one_application_in_two_servers_has_one_lifespan() -> None:
    async def main() -> None:
        exchange = asgi(app)
        handler = stack(server(), exchange)
        async with (
            serve(handler, listen="127.0.0.1:0"),
            serve(stack(server(), exchange), listen="127.0.0.1:0"),
        ):
            assert app.seen == ["lifespan.startup"]

    app = App(STARTED, STOPPED)
    asyncio.run(main())
    assert app.seen == ["lifespan.startup", "lifespan.shutdown"]
