"""The last bytes before a connection closes arrive: alerts, and a response to plain HTTP on a TLS port."""

import asyncio
import select
import socket
import ssl
from email.utils import parsedate_to_datetime

import pytest

from llama import ConnectionHandler, serve, stack, tls
from tests.tls.clients import V13, echo, raw_answer, trusting
from tests.tls.programs import needs, output_of
from tests.tls.sessions import ca_file, in_memory, pair_files

TRIES = 20


def failure_of_a_late_writer(address: tuple[str, int], context: ssl.SSLContext) -> str:
    """Shake hands, wait for the server's alert, write on, and only then read: what that raises."""
    with (
        socket.create_connection(address, 10) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as client,
    ):
        select.select([client], [], [], 10)
        try:
            for _ in range(3):
                client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return f"no failure: {client.recv(100)!r}"
        except OSError as error:
            return getattr(error, "reason", None) or str(error)


async def test_the_alert_for_a_missing_certificate_reaches_a_client_that_writes_on() -> None:
    handler = tls.server(*pair_files("localhost"), client_ca=ca_file())(echo)
    context = trusting(version=V13)
    async with serve(handler, listen="127.0.0.1:0", grace=5) as server:
        address = ("127.0.0.1", server.port)
        seen = [await asyncio.to_thread(failure_of_a_late_writer, address, context) for _ in range(TRIES)]
    assert seen == ["TLSV13_ALERT_CERTIFICATE_REQUIRED"] * TRIES


TLS_PORTS = {
    "server": tls.server(*pair_files("localhost"))(echo),
    "several": tls.server(*pair_files("localhost"), tls.Certificate(*pair_files("a.example")))(echo),
    "route": tls.route({"a.example": echo}),
    "rule": stack(tls.require_sni(), tls.server(*pair_files("localhost")), echo),
}


@pytest.mark.parametrize("handler", TLS_PORTS.values(), ids=TLS_PORTS.keys())
@pytest.mark.parametrize(
    ("request_line", "has_body"),
    [
        (b"GET / HTTP/1.1", True),
        (b"GET http://a.example/ HTTP/1.1", True),
        (b"POST /x HTTP/1.0", True),
        (b"PROPFIND / HTTP/1.1", True),
        (b"HEAD / HTTP/1.1", False),
    ],
    ids=lambda value: value.decode().partition(" HTTP")[0] if isinstance(value, bytes) else "",
)
async def test_plain_http_on_a_tls_port_gets_status_400(
    handler: ConnectionHandler, request_line: bytes, has_body: bool
) -> None:
    sent = request_line + b"\r\nHost: localhost\r\n\r\n"
    answer, raised = await raw_answer(handler, sent, in_memory)
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    assert status == "HTTP/1.1 400 Bad Request"
    assert fields["Connection"] == "close"
    assert parsedate_to_datetime(fields["Date"]).tzinfo is not None
    assert int(fields["Content-Length"]) > 0
    assert len(body) == (int(fields["Content-Length"]) if has_body else 0)
    assert "a plain HTTP request" in raised


@pytest.mark.peer
@needs("curl")
async def test_curl_reads_the_400_while_it_has_more_to_send() -> None:
    async with serve(TLS_PORTS["server"], listen="127.0.0.1:0", grace=5) as server:
        url = f"http://127.0.0.1:{server.port}/"
        code, said = await output_of(
            "curl", "-sS", "-w", "%{http_code}", "-H", "Expect:", "-d", "x" * 100_000, url
        )
    assert code == 0
    assert "This port expects HTTPS" in said
    assert said.endswith("400")
