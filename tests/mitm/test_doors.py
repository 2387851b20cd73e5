"""One relay behind every kind of front door, for clients of HTTP/1.1, HTTP/2 and WebSockets."""

from contextlib import suppress

import pytest

from llama import LlamaError, Target, http, layer, mitm, serve, stack, tcp, tls, ws
from llama.http import Request, RequestHandler, Response
from llama.mitm import Rule
from tests.mitm.doors import DOORS, entered, through
from tests.mitm.worlds import HOST, World

VERSIONS = pytest.mark.parametrize("version", ["1.1", "2"])
EVERY = pytest.mark.parametrize("kind", DOORS)
ALPN = {"1.1": "http/1.1", "2": "h2"}


@layer
async def rewrite(request: Request, inner: RequestHandler) -> Response:
    request.body = request.body.replace(b"cloud", b"llama")
    response = await inner(request)
    response.body = response.body.replace(b"cloud", b"llama")
    return response


async def cloud(request: Request) -> Response:
    said = await request.body.read()
    text = f"{request.method} {request.url} by {request.version}: {said.decode()} from the cloud"
    return Response(200, {"Content-Type": "text/plain"}, text)


@EVERY
@VERSIONS
async def test_requests_go_through_the_layers(world: World, kind: str, version: str) -> None:
    async with through(kind, world, world.https(cloud), rewrite, alpn=(ALPN[version],)) as client:
        for method, body in (("GET", b""), ("POST", b"a cloud")):
            response = await client(Request(method, f"https://{HOST}/a?b", (), body))
            text = (await response.body.read()).decode()
            assert (response.status, response.version) == (200, version)
            said = "a llama" if body else ""
            assert text == f"{method} https://{HOST}/a?b by {version}: {said} from the llama"


@EVERY
@VERSIONS
async def test_the_upstream_decides_the_http_version(world: World, kind: str, version: str) -> None:
    site = stack(tls.server(*world.files(), alpn=[ALPN[version]]), http.server(), cloud)
    async with through(kind, world, site) as client:
        response = await client(Request("GET", f"https://{HOST}/"))
        assert response.version == version and f"by {version}".encode() in await response.body.read()


@EVERY
async def test_websockets_go_through_hooks(world: World, kind: str) -> None:
    async def echo(socket: ws.WebSocket) -> None:
        async for message in socket:
            await socket.send(message)

    def shout(message: ws.Message) -> ws.Message:
        if isinstance(message.data, str) and message.from_client:
            message.data = message.data.upper()
        return message

    site = stack(tls.server(*world.files()), http.server(), ws.server(), echo)
    async with (
        through(kind, world, site, ws.inspect(shout)) as client,
        ws.connect(f"wss://{HOST}/chat", client=client) as socket,
    ):
        await socket.send("hello")
        assert await socket.receive() == "HELLO"
        await socket.send(b"\x00\x01")
        assert await socket.receive() == b"\x00\x01"


@EVERY
async def test_a_rule_passes_through(world: World, kind: str) -> None:
    rules = [mitm.passthrough(HOST)]
    async with through(
        kind, world, world.https(cloud), rewrite, trust={"ca": world.site_pem}, rules=rules
    ) as client:
        response = await client(Request("GET", f"https://{HOST}/"))
        assert (await response.body.read()).endswith(b"from the cloud")


@EVERY
async def test_a_rule_blocks(world: World, kind: str) -> None:
    async with through(kind, world, world.https(cloud), rewrite, rules=[mitm.block(HOST)]) as client:
        with pytest.raises((LlamaError, OSError), match="403" if kind == "http" else "access_denied"):
            await client(Request("GET", f"https://{HOST}/"))


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-x\r\n", b"\x16\x03"])
async def test_a_rule_blocks_other_protocols(
    world: World, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who says nothing that can be told from others is waited for no longer than that takes."""
    monkeypatch.setattr("llama.mitm._relay._CLOSE_TIMEOUT", 0.01)
    async with (
        serve(world.https(cloud), listen="127.0.0.1:0") as served,
        entered("forward", world, served.port, rules=[mitm.block(HOST)]) as port,
    ):
        stream = await tcp.connect()(Target("127.0.0.1", port))
        await stream.write(said)
        with suppress(ConnectionResetError):
            assert await stream.read() == b""
        stream.abort()


@EVERY
@pytest.mark.parametrize(
    ("rule", "passes"),
    [
        (mitm.passthrough("*:443"), True),
        (mitm.passthrough("*:444"), False),
        (mitm.passthrough(sni=[HOST]), True),
        (mitm.passthrough(sni=["other.example"]), False),
        (mitm.passthrough(clients=["127.0.0.0/8"]), True),
        (mitm.passthrough(clients=["192.0.2.0/24"]), False),
        (mitm.passthrough(processes=["browser"]), True),
        (mitm.passthrough(processes=["*/bin/brow*"]), True),
        (mitm.passthrough(processes=["other"]), False),
        (mitm.passthrough(HOST, clients=["127.0.0.1"], processes=["browser"]), True),
        (mitm.passthrough(HOST, clients=["127.0.0.2"], processes=["browser"]), False),
    ],
    ids=lambda each: str(each),
)
async def test_rules_see_all_known_facts(world: World, kind: str, rule: Rule, passes: bool) -> None:
    trust = {"ca": world.site_pem if passes else world.pem}
    async with through(kind, world, world.https(cloud), rewrite, trust=trust, rules=[rule]) as client:
        response = await client(Request("GET", f"https://{HOST}/"))
        assert (await response.body.read()).endswith(b"cloud" if passes else b"llama")
