"""HTTP/2 from the client's side."""

import asyncio
import ssl

import pytest

from llama import Target, http, mitm, serve, stack, tcp
from llama.http import Origin, Request, Response
from tests.mitm.test_peers import CURL, doors, rewrite
from tests.mitm.worlds import HOST, To, World, fronted
from tests.tls.programs import needs, output_of


@pytest.mark.peer
@needs("curl")
async def test_curl_speaks_http2_behind_both_front_doors(world: World) -> None:
    async with doors(world, rewrite) as proxies:
        for proxy in proxies:
            code, said = await output_of(
                *CURL, "--http2", "--cacert", str(world.pem), "--proxy", proxy, "-w", "\nversion %{http_version}\n",
                f"https://{HOST}/", f"https://{HOST}/x",
            )  # fmt: skip
            assert code == 0, said
            assert said.count("version 2") == 2 and "cloud" not in said


@pytest.mark.peer
async def test_httpx2_sends_many_at_once_over_http2(world: World) -> None:
    httpx = pytest.importorskip("httpx2")
    pytest.importorskip("h2")
    context = ssl.create_default_context(cafile=world.pem)
    async with (
        doors(world, rewrite) as (proxy, _),
        httpx.AsyncClient(proxy=proxy, verify=context, http2=True) as client,
    ):
        answers = await asyncio.gather(*(client.get(f"https://{HOST}/part1") for _ in range(10)))
        assert {(each.http_version, len(each.content)) for each in answers} == {("HTTP/2", 100_000)}


async def test_http2_without_tls_is_forwarded_as_http2(world: World) -> None:
    seen: list[str] = []

    async def upstream(request: Request) -> Response:
        seen.append(request.version)
        return Response(200, body=b"from the cloud")

    async with serve(stack(http.server(), upstream), listen="127.0.0.1:0") as served:
        to = To(served.port)
        door = tcp.forward(f"{HOST}:80", connect=to, relay=mitm.relay(world.ca, rewrite))
        async with serve(door, listen="127.0.0.1:0") as front, http.client(To(front.port)) as client:
            for _ in range(2):
                response = await client(get("h2c"))
                assert (await response.body.read(), response.version) == (b"from the llama", "2")
    assert seen == ["2", "2"] and len(to.targets) == 1


async def test_http2_at_both_ends_shares_one_connection(world: World) -> None:
    async with fronted(world, world.https(), rewrite) as front:
        await front.get()
        answers = await asyncio.gather(*(front.get() for _ in range(10)))
        assert set(answers) == {(200, "GET /a from the llama")}
        assert len(front.to.targets) == 1


def get(scheme: str) -> Request:
    request = Request("GET", f"http://{HOST}/a")
    request.extensions.set(Origin(scheme, Target(HOST, 80)))
    return request
