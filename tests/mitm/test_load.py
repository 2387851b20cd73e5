"""Very many clients and hosts at once: nothing is left behind, and what is kept is bounded."""

import asyncio
import gc
import logging
import random
from typing import cast

import pytest

from llama import LlamaError, Stream, Target, http, layer, mitm, serve, socks5, stack, tls
from llama.http import Request, RequestHandler, Response
from llama.mitm._interception import Interception
from llama.mitm._proxy import MitmProxy
from llama.mitm._relay import MitmRelay
from tests.mitm.doors import way
from tests.mitm.worlds import To, World, page
from tests.tls.client_hello.hellos import client_hello, record, sni

MANY = 200


def host(number: int) -> str:
    return f"h{number}.many.example"


@layer
async def rewrite(request: Request, inner: RequestHandler) -> Response:
    response = await inner(request)
    response.body = response.body.replace(b"cloud", b"llama")
    return response


async def browse(world: World, kind: str, port: int, number: int) -> int:
    """A client of a few requests to a host of its own; how many were answered well."""
    over = way(kind, port)
    good = 0
    async with http.client(over, tls=tls.connect(over, ca=world.pem)) as client:
        for path in ("a", "b", "c"):
            response = await client(Request("GET", f"https://{host(number)}/{path}"))
            good += await response.body.read() == f"GET /{path} from the llama".encode()
    return good


async def bother(world: World, kind: str, port: int, number: int) -> None:
    """A client that leaves in the midst of something."""
    chance = random.Random(number)
    stream: Stream | None = None
    try:
        match number % 4:
            case 0:  # within the hello
                stream = await way(kind, port)(Target(host(number), 443))
                await stream.write(
                    record(client_hello(sni(host(number).encode())))[: chance.randrange(1, 60)]
                )
            case 1:  # within the handshake
                stream = await way(kind, port)(Target(host(number), 443))
                await stream.write(record(client_hello(sni(host(number).encode()))))
            case 2:  # by refusing the certificate
                stream = await tls.connect(way(kind, port), ca=world.site_pem)(Target(host(number), 443))
            case _:  # within a request
                stream = await tls.connect(way(kind, port), ca=world.pem)(Target(host(number), 443))
                await stream.write(b"GET /a HTTP/1.1\r\nHost: a"[: chance.randrange(1, 25)])
    except (LlamaError, OSError):
        pass
    if stream is not None:
        stream.abort()


def alive() -> int:
    gc.collect()
    return sum(isinstance(each, Interception) for each in gc.get_objects())


@pytest.mark.llama_timeout(180)
@pytest.mark.parametrize("kind", ["http", "socks5", "late socks5"])
async def test_200_clients_of_200_hosts_at_once(
    world: World, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "llama")  # kept records keep errors, and those what they came from
    pinning = mitm.Pinning(limit=20)
    site = world.https(page, "*.many.example")
    async with serve(site, listen="127.0.0.1:0") as served:
        to = To(served.port)
        options: mitm.Options = {"verify": world.site_pem, "pinning": pinning, "certificate_cache_size": 50}
        if kind == "http":
            proxy = cast("MitmProxy", mitm.proxy(world.ca, rewrite, connect=to, **options))
            door, relay = stack(http.server(), proxy), proxy.relay
        else:
            relay = cast("MitmRelay", mitm.relay(world.ca, rewrite, **options))
            door = socks5.server(
                connect=mitm.lazy_connect(to) if kind.startswith("late") else to, relay=relay
            )
        async with serve(door, listen="127.0.0.1:0") as front:
            async with asyncio.TaskGroup() as group:
                good = [group.create_task(browse(world, kind, front.port, each)) for each in range(MANY)]
                for number in range(MANY):
                    group.create_task(bother(world, kind, front.port, number))
            assert {task.result() for task in good} == {3}
            assert len(relay.certificates) <= 50
            assert len(pinning.entries()) <= 20
            assert not relay.certificates._making
    assert alive() == 0
