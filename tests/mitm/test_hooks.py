"""Hooks that fail: each harms its own exchange alone."""

import asyncio
import logging

import pytest

from llama import ConfigError, http, layer, mitm, tls
from llama.http import Request, RequestHandler, Response
from tests.mitm.worlds import World, fronted


@layer
async def moody(request: Request, inner: RequestHandler) -> Response:
    if request.path == "/raise":
        raise ZeroDivisionError("a bug of the hook")
    if request.path == "/nonsense":
        return "nonsense"  # type: ignore[return-value]
    if request.path == "/hang":
        await asyncio.Event().wait()
    response = await inner(request)
    if request.path == "/body":
        response.body = response.body.map(lambda data: data[1 // 0 :])
    return response


async def test_a_hook_that_raises_causes_one_500_and_one_traceback(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with fronted(world, world.https(), moody) as front:
        assert (await front.get("https://site.example/raise"))[0] == 500
        assert (await front.get())[0] == 200
    logged = [record for record in caplog.records if record.exc_info]
    assert len(logged) == 1 and "a bug of the hook" in caplog.text
    assert 'raise ZeroDivisionError("a bug of the hook")' in caplog.text


async def test_a_hook_that_returns_a_wrong_type_is_named(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with fronted(world, world.https(), moody) as front:
        assert (await front.get("https://site.example/nonsense"))[0] == 500
        assert (await front.get())[0] == 200
    assert "the hook moody returned 'nonsense', not a Response" in caplog.text


async def test_a_blocked_hook_delays_only_its_own_exchange(world: World) -> None:
    server = http.server(handler_timeout=0.2)
    async with fronted(world, world.https(), moody, server=server) as front, asyncio.TaskGroup() as group:
        hanging = group.create_task(front.get("https://site.example/hang"))
        assert (await front.get())[0] == 200
        assert (await hanging)[0] == 504


async def test_a_hook_that_fails_within_a_body_aborts_its_own_exchange(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "llama")
    async with fronted(world, world.https(), moody) as front:
        with pytest.raises((EOFError, OSError)):
            await front.get("https://site.example/body")
        assert (await front.get())[0] == 200
    assert caplog.text.count("ZeroDivisionError: ") == 1


def test_invalid_settings_are_rejected(world: World) -> None:
    wrong: list[dict[str, object]] = [
        {"default": "no"},
        {"on_tls_error": "no"},
        {"on_tls_error": "passthrough", "connect_upstream_first": False},
        {"server_first_timeout": 0},
        {"revoked_fingerprints": ["abc"]},
        {"verify": False, "tls": tls.connect},
        {"certificate_cache_size": 0},
    ]
    for options in wrong:
        with pytest.raises(ConfigError):
            mitm.relay(world.ca, **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword argument 'verfy'"):
        mitm.relay(world.ca, verfy=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="set_header is a layer factory: call it"):
        mitm.relay(world.ca, http.set_header)  # type: ignore[arg-type]
