import asyncio
import logging
from collections.abc import Callable

import pytest

from llama import Bridge, Extensions, PeerAddress, Target, describe, testing, trace
from tests.layers.calling import call


async def answer(_: object) -> str:
    await asyncio.sleep(0.25)
    return "answer"


def only(caplog: pytest.LogCaptureFixture) -> dict[str, object]:
    (record,) = caplog.records
    assert record.name == "llama.trace"
    wanted = ("trace.name", "duration", "outcome", "error.type", "client.address", "server.address")
    found = {name: value for name, value in vars(record).items() if name in wanted}
    return {"line": record.getMessage(), **found}


async def test_a_call_is_one_line_with_its_duration_and_outcome(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with testing.clock(autojump=True):
        assert await trace("ask")(answer)("x") == "answer"
    assert only(caplog) == {
        "line": "ask: ok after 0.250000 s",
        "trace.name": "ask",
        "duration": pytest.approx(0.25),
        "outcome": "ok",
    }


async def test_a_failure_logs_the_exception_type(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_: object) -> None:
        raise ValueError("no such thing")

    caplog.set_level("INFO")
    async with testing.clock():
        with pytest.raises(ValueError, match="no such thing"):
            await trace("ask")(broken)("x")
    found = only(caplog)
    assert (found["outcome"], found["error.type"]) == ("error", "ValueError")
    assert found["line"] == "ask: error after 0.000000 s: no such thing"


async def test_a_cancelled_call_is_logged_as_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        begun = group.create_task(call(trace("ask")(answer), "x"))
        await clock.advance(0.125)
        begun.cancel()
    assert only(caplog)["line"] == "ask: cancelled after 0.125000 s"


async def test_the_record_has_client_and_server_address(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    client, far_end = testing.memory_pair()
    client.extensions.set(PeerAddress("192.0.2.7", 1234))
    async with testing.clock(autojump=True):
        await trace("carry")(answer)(Bridge(client, Target("a.example", 443), answer))  # type: ignore[arg-type]
    client.abort()
    far_end.abort()
    found = only(caplog)
    assert (found["client.address"], found["server.address"]) == ("192.0.2.7", "a.example")


async def test_a_target_without_a_peer_has_no_client(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with testing.clock(autojump=True):
        await trace("reach")(answer)(Target("a.example", 443, Extensions()))
    assert "client.address" not in only(caplog)


async def test_an_output_that_ends_later_is_logged_then(caplog: pytest.LogCaptureFixture) -> None:
    callbacks: list[Callable[[], object]] = []

    class Answer:
        def on_close(self, callback: Callable[[], object], /) -> None:
            callbacks.append(callback)

    async def respond(_: object) -> Answer:
        return Answer()

    caplog.set_level("INFO")
    async with testing.clock() as clock:
        await trace("respond")(respond)("x")
        assert not caplog.records
        await clock.advance(3)
        callbacks[0]()
    assert only(caplog)["line"] == "respond: ok after 3.000000 s"


async def test_a_disabled_logger_gets_no_records(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "llama.trace")
    async with testing.clock(autojump=True):
        assert await trace("ask")(answer)("x") == "answer"
    assert not caplog.records


def test_its_repr_shows_its_settings() -> None:
    assert describe(trace("ask")(answer)) == "trace('ask') > answer"
