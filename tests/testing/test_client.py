"""`testing.client`: requests without sockets."""

import pytest

from llama import PeerAddress, Stream, http, stack, testing
from llama._core.errors import LlamaError
from llama.http import Request, Response


async def app(request: Request) -> Response:
    if request.path == "/hint":
        await request.send_informational(103, {"Link": "</a.css>"})
    if request.path == "/fail":
        raise RuntimeError("a bug")
    text = f"{request.method} {request.url} from {request.client} "
    return Response(201, {"X-A": "1"}, text.encode() + await request.body.read())


both = pytest.mark.parametrize("service", [app, stack(http.server(), app)], ids=["exchange", "handler"])


@both
async def test_requests_are_answered(service: http.RequestHandler) -> None:
    async with testing.client(service) as client:
        response = await client.post("/x?y", b"body", {"X-B": "2"})
        assert response.status == 201 and response.headers["x-a"] == "1"
        got = await response.body.read()
    assert got.startswith(b"POST http://testserver/x?y from 192.0.2.1:50000 ") and got.endswith(b" body")


@both
async def test_every_method_has_its_call(service: http.RequestHandler) -> None:
    async with testing.client(service, peer=PeerAddress("203.0.113.9", 1)) as client:
        for method in ("get", "post", "put", "delete"):
            response = await getattr(client, method)("http://other.example/")
            got = await response.body.read()
            assert got == f"{method.upper()} http://other.example/ from 203.0.113.9:1 ".encode()
        assert await (await client.head("/")).body.read() in (
            b"",
            b"HEAD http://testserver/ from 203.0.113.9:1 ",
        )


@both
async def test_informational_responses_are_kept(service: http.RequestHandler) -> None:
    async with testing.client(service) as client:
        await client.get("/hint")
        assert [(each.status, list(each.headers)) for each in client.informational] == [
            (103, [("Link", "</a.css>")])
        ]


async def test_an_exchange_raises_here_and_a_handler_answers() -> None:
    async with testing.client(app) as client:
        with pytest.raises(RuntimeError, match="a bug"):
            await client.get("/fail")
    async with testing.client(stack(http.server(), app)) as client:
        assert (await client.get("/fail")).status == 500


async def test_responses_are_closed_with_the_client() -> None:
    closed: list[str] = []

    async def app(request: Request) -> Response:
        response = Response()
        response.on_close(lambda: closed.append("closed"))
        return response

    async with testing.client(app) as client:
        await client.get("/")
        assert not closed
    assert closed == ["closed"]


async def upgrading(request: Request) -> Response:
    async def shout(stream: Stream) -> None:
        while data := await stream.read():
            await stream.write(data.upper())

    return (
        Response(upgrade=shout)
        if request.upgrade_protocol == "shout" or request.method == "CONNECT"
        else Response()
    )


@pytest.mark.parametrize("service", [upgrading, stack(http.server(), upgrading)], ids=["exchange", "handler"])
async def test_upgrades_give_a_stream(service: http.RequestHandler) -> None:
    async with testing.client(service) as client:
        async with client.upgrade("shout", "/") as (_, stream):
            await stream.write(b"hi")
            assert await stream.read() == b"HI"
        with pytest.raises(LlamaError, match="expected an upgrade"):
            async with client.upgrade("whisper", "/"):
                pass


async def test_the_resources_of_a_service_are_entered() -> None:
    entered: list[str] = []

    class Owner:
        async def __aenter__(self) -> None:
            entered.append("in")

        async def __aexit__(self, *error: object) -> None:
            entered.append("out")

        async def __call__(self, request: Request) -> Response:
            return Response()

    async with testing.client(Owner()) as client:
        await client.get("/")
        assert entered == ["in"]
    assert entered == ["in", "out"]
