"""The proxy that looks inside, from a client's side."""

from llama import layer
from llama.http import Exchange, Request, Response
from tests.mitm.worlds import HOST, World, fronted, page


@layer
async def intercept(request: Request, inner: Exchange) -> Response:
    request.headers["x-seen-by"] = "llama"
    response = await inner(request)
    response.body = response.body.replace(b"cloud", b"llama")
    return response


async def test_a_body_inside_tls_is_changed(world: World) -> None:
    async with fronted(world, world.https(), intercept) as front:
        assert await front.get() == (200, "GET /a from the llama")


async def test_a_request_with_a_whole_url_is_changed_alike(world: World) -> None:
    from llama import http, stack

    plain = stack(http.server(), page)
    async with fronted(world, plain, intercept) as front:
        assert await front.get(f"http://{HOST}/b") == (200, "GET /b from the llama")
