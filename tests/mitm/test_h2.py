"""HTTP/2 from the client's side."""

import asyncio
import ssl

import pytest

from llama import http
from llama._stack import spoken
from tests.mitm.test_peers import CURL, doors, rewrite
from tests.mitm.worlds import HOST, World, page
from tests.tls.programs import needs, output_of

speaks_h2 = "h2" in spoken(http.server()(page))
pytestmark = [pytest.mark.peer, pytest.mark.skipif(not speaks_h2, reason="http.server() speaks no HTTP/2")]


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
