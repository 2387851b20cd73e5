"""Layers that answer, slow down and break: `map_local`, `map_remote`, `faults`, `throttle`."""

from pathlib import Path

import pytest

from llama import ConfigError, ProtocolError, TruncatedError, http, mitm, serve, stack, testing
from llama.http import Request, Response
from tests.mitm.worlds import HOST, World, fronted


async def upstream(request: Request) -> Response:
    return Response(200, body=f"upstream {request.url}")


async def text(client: testing.TestClient, url: str) -> str:
    return (await (await client.get(url)).body.read()).decode()


async def test_files_are_served_instead_of_the_upstream(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "a.txt").write_text("a picture")
    (tmp_path / ".app.js").write_text("an app")

    async def answer(request: Request) -> Response:
        return Response(200, body=f"exchange {request.path}")

    layer = mitm.map_local(
        {
            "https://a.example/img/": tmp_path / "img",
            "https://a.example/app.js": tmp_path / ".app.js",
            "https://A.example:443/img/own": answer,
        }
    )
    async with testing.client(stack(layer, upstream)) as client:
        assert await text(client, "https://a.example/img/a.txt") == "a picture"
        assert await text(client, "https://a.example/app.js?v=1") == "an app"
        assert await text(client, "https://a.example:443/img/own/x") == "exchange /img/own/x"
        for other in ("https://a.example/app.jsx", "http://a.example/app.js", "https://b.example/img/a.txt"):
            assert await text(client, other) == f"upstream {other}"
        assert (await client.get("https://a.example/img/../.app.js")).status in (400, 404)


async def test_another_server_answers() -> None:
    async def other(request: Request) -> Response:
        return Response(200, body=f"{request.authority} {request.path}")

    async with serve(stack(http.server(), other), listen="127.0.0.1:0") as served:
        to = f"http://{served.address}"
        layer = mitm.map_remote({"https://a.example/api/": f"{to}/v2/", "https://b.example": to})
        async with testing.client(stack(layer, upstream)) as client:
            assert await text(client, "https://a.example/api/x?y") == f"{served.address} /v2/x?y"
            assert await text(client, "https://b.example/z") == f"{served.address} /z"
            assert await text(client, "https://a.example/x") == "upstream https://a.example/x"
            with pytest.raises(ProtocolError, match="dot segments"):
                await client.get("https://a.example/api/../x")
        kept = mitm.map_remote({"https://a.example/": to}, keep_host=True)
        async with testing.client(stack(kept, upstream)) as client:
            assert await text(client, "https://a.example/x") == "a.example /x"


async def test_another_server_answers_behind_interception(world: World) -> None:
    async def other(request: Request) -> Response:
        return Response(200, body=b"another")

    async with serve(stack(http.server(), other), listen="127.0.0.1:0") as served:
        layer = mitm.map_remote({f"https://{HOST}/b": f"http://{served.address}/"})
        async with fronted(world, world.https(), layer) as front:
            assert await front.get(f"https://{HOST}/b") == (200, "another")
            assert await front.get(f"https://{HOST}/a") == (200, "GET /a from the cloud")


async def test_errors_occur_at_the_configured_rate() -> None:
    async with testing.client(stack(mitm.faults(errors=1.0, status=418), upstream)) as client:
        assert [(await client.get("/")).status for _ in range(3)] == [418, 418, 418]
    some = mitm.faults(errors=0.5, seed=1)
    async with testing.client(stack(some, upstream)) as client:
        statuses = [(await client.get("/")).status for _ in range(100)]
    assert 30 < statuses.count(503) < 70 and statuses.count(200) + statuses.count(503) == 100


async def test_faults_apply_only_to_matching_requests() -> None:
    layer = mitm.faults(errors=1.0, match=lambda request: request.path == "/x")
    async with testing.client(stack(layer, upstream)) as client:
        assert [(await client.get(path)).status for path in ("/x", "/y")] == [503, 200]


async def test_a_response_is_aborted() -> None:
    async with testing.client(stack(mitm.faults(aborts=1.0, after=3), upstream)) as client:
        body = (await client.get("/")).body
        assert await body.read_chunk() == b"ups"
        with pytest.raises(TruncatedError):
            await body.read_chunk()


async def test_latency_delays_the_exchange() -> None:
    exchange = stack(mitm.faults(latency=5), upstream)
    async with testing.clock(autojump=True) as clock, testing.client(exchange) as client:
        began = clock.time()
        assert (await client.get("/")).status == 200
        assert clock.time() - began >= 5


async def test_throttle_limits_the_bandwidth_of_bodies() -> None:
    async def big(request: Request) -> Response:
        return Response(200, body=[b"x" * 1000] * 5)

    exchange = stack(mitm.throttle(download=500), big)
    async with testing.clock(autojump=True) as clock, testing.client(exchange) as client:
        began = clock.time()
        assert await (await client.get("/")).body.read() == b"x" * 5000
        assert 9 < clock.time() - began < 11


@pytest.mark.parametrize(
    "make",
    [
        lambda: mitm.faults(errors=2),
        lambda: mitm.faults(latency=(2, 1)),
        lambda: mitm.faults(aborts=-1),
        lambda: mitm.faults(status=100),
        lambda: mitm.throttle(download=0),
        lambda: mitm.map_local({}),
        lambda: mitm.map_local({"a.example": "."}),
        lambda: mitm.map_local({"https://a.example/": "nowhere"}),
        lambda: mitm.map_remote({"https://a.example/": "nowhere"}),
        lambda: mitm.map_remote({"ftp://a.example/": "http://b.example"}),
    ],
)
def test_invalid_settings_are_rejected(make: object) -> None:
    assert callable(make)
    with pytest.raises(ConfigError):
        make()
