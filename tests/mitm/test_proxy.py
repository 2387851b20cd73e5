"""The proxy that looks inside, from a client's side."""

import pytest

from llama import RefusedError, Target, TLSError, http, layer, mitm, stack, tls
from llama.http import Origin, Request, RequestHandler, Response
from tests.mitm.worlds import HOST, World, fronted, page


@layer
async def intercept(request: Request, inner: RequestHandler) -> Response:
    request.headers["x-seen-by"] = "llama"
    response = await inner(request)
    response.body = response.body.replace(b"cloud", b"llama")
    return response


async def test_a_body_inside_tls_is_changed(world: World) -> None:
    async with fronted(world, world.https(), intercept) as front:
        assert await front.get() == (200, "GET /a from the llama")


async def test_a_request_in_absolute_form_is_changed_too(world: World) -> None:
    plain = stack(http.server(), page)
    async with fronted(world, plain, intercept) as front:
        assert await front.whole(f"http://{HOST}/b") == (200, "GET /b from the llama")


async def test_many_requests_share_the_bridges_one_connection(world: World) -> None:
    async with fronted(world, world.https(), intercept) as front:
        for _ in range(3):
            assert (await front.get())[0] == 200
        assert len(front.to.targets) == 1


async def test_a_closed_upstream_is_connected_again(world: World) -> None:
    async def closing(request: Request) -> Response:
        return Response(200, {"Connection": "close"}, b"once")

    upstream = stack(tls.server(*world.files(), alpn=["http/1.1"]), http.server(), closing)
    async with fronted(world, upstream) as front:
        for _ in range(3):
            assert await front.get() == (200, "once")
        assert len(front.to.targets) == 3


async def test_a_host_of_another_name_goes_to_the_bridges_own_target(world: World) -> None:
    async with fronted(world, world.https()) as front:
        request = Request("GET", f"https://{HOST}/a", {"Host": "elsewhere.example"})
        request.extensions.set(Origin("https", Target(HOST, 443)))
        response = await front.client(request)
        assert response.status == 200
        await response.body.read()
        assert [str(each) for each in front.to.targets] == [f"{HOST}:443"]


async def test_layers_find_the_interception(world: World) -> None:
    seen: list[mitm.Interception] = []

    @layer
    async def look(request: Request, inner: RequestHandler) -> Response:
        seen.append(request.extensions[mitm.Interception])
        return await inner(request)

    async with fronted(world, world.https(), look) as front:
        await front.get()
    assert seen[0].server_name == HOST
    assert str(seen[0].target) == f"{HOST}:443"
    assert seen[0].upstream is not None and seen[0].upstream.version == "TLSv1.3"


async def test_without_connecting_first_a_layer_can_answer_alone(world: World) -> None:
    @layer
    async def answer(request: Request, inner: RequestHandler) -> Response:
        return Response(200, body=b"mine")

    for first in (False, True):
        async with fronted(world, world.https(), answer, connect_upstream_first=first) as front:
            assert await front.get() == (200, "mine")
            assert len(front.to.targets) == first


async def test_content_codings_that_cannot_be_decoded_are_not_requested(world: World) -> None:
    async def asked(request: Request) -> Response:
        return Response(200, body=request.headers.get("accept-encoding", ""))

    sent = {"Accept-Encoding": "gzip;q=0.5, zzz, yyy, deflate, *"}
    async with fronted(world, world.https(asked), intercept) as front:
        assert await front.get(**sent) == (200, "gzip;q=0.5, deflate")
    async with fronted(world, world.https(asked)) as front:
        assert await front.get(**sent) == (200, "gzip;q=0.5, zzz, yyy, deflate, *")


# the magic host


async def test_the_magic_host_gives_the_certificate(world: World) -> None:
    async with fronted(world, world.https(), allow=[HOST]) as front:
        url = "llama.internal/"
        for status, text in (
            await front.get(f"https://{url}"),
            await front.get(f"http://{url}"),
            await front.whole(f"http://{url}"),
        ):
            assert status == 200 and world.ca.fingerprint in text
        assert await front.get("http://llama.internal/ca.pem") == (200, world.ca.pem.decode())
        assert (await front.get("http://llama.internal/nothing"))[0] == 404
        response = await front.client(Request("GET", "http://llama.internal/ca.cer"))
        assert await response.body.read() == world.ca.der
        assert response.headers["content-type"] == "application/x-x509-ca-cert"
        assert front.to.targets == []


# rules


async def test_a_host_that_is_passed_through_keeps_its_own_certificate(world: World) -> None:
    async with fronted(world, world.https(), intercept, rules=[mitm.passthrough("*.example")]) as front:
        with pytest.raises(TLSError, match="not trusted"):
            await front.get()
        over = http.connect(f"127.0.0.1:{front.port}")
        async with http.client(over, tls=tls.connect(over, ca=world.site_pem)) as client:
            response = await client(Request("GET", f"https://{HOST}/a"))
            assert await response.body.read() == b"GET /a from the cloud"


async def test_a_blocked_host_is_refused(world: World) -> None:
    plain = stack(http.server(), page)
    async with fronted(world, plain, rules=[mitm.block(HOST)]) as front:
        with pytest.raises(RefusedError, match="403"):
            await front.get()
        status, text = await front.whole(f"http://{HOST}/")
        assert status == 403 and "blocked by a rule" in text
        assert front.to.targets == []


async def test_a_blocked_server_name_gets_an_alert(world: World) -> None:
    async with fronted(world, world.https(), rules=[mitm.block(sni=[HOST])]) as front:
        with pytest.raises(TLSError, match="access_denied"):
            await front.get()


async def test_plain_requests_passed_through_skip_the_layers(world: World) -> None:
    plain = stack(http.server(), page)
    async with fronted(world, plain, intercept, default="passthrough") as front:
        assert await front.whole(f"http://{HOST}/b") == (200, "GET /b from the cloud")
