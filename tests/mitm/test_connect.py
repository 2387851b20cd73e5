"""CONNECT inside an intercepted connection: the upstream must not see it, for it would open a tunnel."""

import pytest

from llama import ConnectionHandler, Shutdown, Target, http, mitm, serve, stack, tls
from llama.http import Request, RequestHandler, Response
from llama.http._limits import H2Limits
from tests.http.h2.raw_client import Talk
from tests.mitm.doors import DOORS, entered, through, way
from tests.mitm.worlds import HOST, World


def recording(heard: list[str]) -> RequestHandler:
    async def app(request: Request) -> Response:
        heard.append(f"{request.method} {request.upgrade_protocol}")
        return Response(200)

    return app


def connecting(scheme: str) -> Request:
    request = Request("GET", f"{scheme}://{HOST}/")
    request.authority = request.path = f"{HOST}:{443 if scheme == 'https' else 80}"
    request.method = "CONNECT"
    return request


def site(world: World, scheme: str, app: RequestHandler) -> ConnectionHandler:
    return world.https(app) if scheme == "https" else stack(http.server(), app)


@pytest.mark.parametrize("kind", DOORS)
@pytest.mark.parametrize(("scheme", "alpn"), [("https", "http/1.1"), ("https", "h2"), ("http", "http/1.1")])
async def test_connect_is_refused_behind_every_front_door(
    world: World, kind: str, scheme: str, alpn: str
) -> None:
    if (kind, scheme) == ("sni", "http"):
        pytest.skip("this front door requires TLS")
    heard: list[str] = []
    async with through(kind, world, site(world, scheme, recording(heard)), alpn=(alpn,)) as client:
        request = connecting(scheme)
        response = await client(request)
        assert (response.status, response.upgrade) == (405, None)
        await response.aclose()
    assert heard == []


@pytest.mark.parametrize("kind", DOORS)
@pytest.mark.parametrize("protocol", ["h2c", "connect-udp"])
async def test_extended_connect_for_anything_but_websocket_is_501_behind_every_front_door(
    world: World, kind: str, protocol: str
) -> None:
    heard: list[str] = []
    async with (
        serve(world.https(recording(heard)), listen="127.0.0.1:0") as served,
        entered(kind, world, served.port) as port,
    ):
        secure = tls.connect(way(kind, port), ca=world.pem, alpn=["h2"])
        talk = Talk(await secure(Target(HOST, 443)), Shutdown.current(), H2Limits())
        head = [(":method", "CONNECT"), (":protocol", protocol), (":scheme", "https")]
        await talk.flush()
        await talk.ask([*head, (":authority", HOST), (":path", "/p")], end=False)
        assert (await talk.until("end"))[0].startswith("1 response 501")
        talk.stream.abort()
    assert heard == []


@pytest.mark.parametrize("alpn", ["http/1.1", "h2"])
async def test_connect_is_refused_if_a_rule_maps_to_another_server(world: World, alpn: str) -> None:
    heard: list[str] = []

    async def elsewhere(request: Request) -> Response:
        heard.append(request.method)
        return Response(200)

    layer = mitm.map_remote({f"https://{HOST}/": "http://b.example/"}, client=elsewhere)
    async with through("http", world, world.https(), layer, alpn=(alpn,)) as client:
        for request, status in ((connecting("https"), 405), (Request("GET", f"https://{HOST}/"), 200)):
            response = await client(request)
            assert response.status == status
            await response.aclose()
    assert heard == ["GET"]
