"""The server, as conversations."""

import asyncio
import errno
import logging
import socket

import pytest

from llama import (
    Bridge,
    ConfigError,
    OverloadedError,
    RefusedError,
    Stream,
    Target,
    UnreachableError,
    describe,
    serve,
    socks5,
    stack,
    tcp,
    testing,
)
from llama.socks5._reply_codes import code_of
from llama.socks5._wire.socks5 import ReplyCode
from llama.testing._transcript import converse
from tests.socks5.worlds import Echoes, Fails, on_loopback

HELLO, CHOICE = ">> \x05\x01\x00", "<< \x05\x00"
CONNECT = ">> \x05\x01\x00\x03\x09a.example\x01\xbb"
OK = "<< \x05\x00\x00\x01\0\0\0\0\0\0"


def failed(code: int) -> str:
    return f"<< \x05{chr(code)}\x00\x01\0\0\0\0\0\0"


async def test_a_client_is_connected() -> None:
    there = Echoes()
    await testing.run_transcript(
        socks5.server(connect=there), HELLO, CHOICE, CONNECT, OK, ">> hi", "<< hi", ">>", "<<"
    )
    assert there.targets == [Target("a.example", 443)]


async def test_a_byte_at_a_time() -> None:
    there = Echoes()
    slow = [f">> {each}" for each in "\x05\x01\x00"]
    request = [f">> {each}" for each in "\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50"]
    await testing.run_transcript(
        socks5.server(connect=there), *slow, CHOICE, *request, OK, ">> hi", "<< hi", pair=on_loopback
    )
    assert there.targets == [Target("127.0.0.1", 80)]


async def test_early_data_is_not_lost() -> None:
    all_at_once = "\x05\x01\x00\x05\x01\x00\x03\x09a.example\x01\xbbhi"
    await testing.run_transcript(
        socks5.server(connect=Echoes()), f">> {all_at_once}", CHOICE, OK, "<< hi", ">>", "<<"
    )


async def test_a_client_that_sends_nothing_is_disconnected() -> None:
    await testing.run_transcript(socks5.server(connect=Echoes()), ">>", "<<")


async def test_a_client_that_disconnects_within_a_message_is_aborted() -> None:
    await testing.run_transcript(socks5.server(connect=Echoes()), ">> \x05\x02", ">>", "<!")


async def test_another_protocol_is_aborted() -> None:
    await testing.run_transcript(socks5.server(connect=Echoes()), ">> GET / HTTP/1.1\r\n\r\n", "<<")


class TestPasswords:
    async def test_the_right_password_is_accepted(self) -> None:
        users: list[socks5.User | None] = []

        async def relay(bridge: Bridge) -> None:
            users.append(bridge.extensions.get(socks5.User))

        server = socks5.server(auth={"john": "secret"}, connect=Echoes(), relay=relay)
        password = ">> \x01\x04john\x06secret"
        await testing.run_transcript(
            server, ">> \x05\x02\x00\x02", "<< \x05\x02", password, "<< \x01\x00", CONNECT, OK
        )
        assert users == [socks5.User("john")]

    @pytest.mark.parametrize("said", ["\x04john\x05wrong", "\x04jane\x06secret", "\x00\x00", "\x04john\x00"])
    async def test_a_wrong_password_is_rejected(self, said: str) -> None:
        server = socks5.server(auth={"john": "secret"}, connect=Echoes())
        await testing.run_transcript(
            server, ">> \x05\x01\x02", "<< \x05\x02", f">> \x01{said}", "<< \x01\x01", "<<"
        )

    async def test_no_authentication_is_not_accepted(self) -> None:
        server = socks5.server(auth={"john": "secret"}, connect=Echoes())
        await testing.run_transcript(server, HELLO, "<< \x05\xff", "<<")

    async def test_the_password_method_is_refused_without_auth(self) -> None:
        await testing.run_transcript(socks5.server(connect=Echoes()), ">> \x05\x01\x02", "<< \x05\xff", "<<")

    @pytest.mark.parametrize("asynchronous", [True, False])
    async def test_a_function_decides(self, asynchronous: bool) -> None:
        asked: list[tuple[str, str]] = []

        def now(user: str, password: str) -> bool:
            asked.append((user, password))
            return password == "right"

        async def later(user: str, password: str) -> bool:
            await asyncio.sleep(0)
            return now(user, password)

        server = socks5.server(auth=later if asynchronous else now, connect=Echoes())
        talk = [">> \x05\x01\x02", "<< \x05\x02"]
        await testing.run_transcript(server, *talk, ">> \x01\x04john\x05right", "<< \x01\x00", CONNECT, OK)
        await testing.run_transcript(server, *talk, ">> \x01\x04john\x05wrong", "<< \x01\x01", "<<")
        assert asked == [("john", "right"), ("john", "wrong")]

    def test_unusable_credentials_are_an_error_at_start(self) -> None:
        for auth in ({}, {"": "x"}, {"john": ""}, {"john": "x" * 256}):
            with pytest.raises(ConfigError):
                socks5.server(auth=auth)


class TestReplies:
    @pytest.mark.parametrize(
        ("number", "code"),
        [
            (errno.ECONNREFUSED, 5),
            (errno.EHOSTUNREACH, 4),
            (errno.ENETUNREACH, 3),
            (errno.ETIMEDOUT, 6),
            (errno.EACCES, 2),
            (errno.EIO, 1),
        ],
    )
    async def test_the_system_error_is_named(self, number: int, code: int) -> None:
        error = UnreachableError("cannot connect")
        error.__cause__ = OSError(number, "as the system says")
        await testing.run_transcript(
            socks5.server(connect=Fails(error)), HELLO, CHOICE, CONNECT, failed(code), "<<"
        )

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (RefusedError("no"), ReplyCode.NOT_ALLOWED),
            (TimeoutError("too slow"), ReplyCode.TTL_EXPIRED),
            (socket.gaierror(socket.EAI_NONAME, "unknown"), ReplyCode.HOST_UNREACHABLE),
            (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), ReplyCode.REFUSED),
            (OverloadedError("full"), ReplyCode.FAILURE),
            (ValueError("a bug"), ReplyCode.FAILURE),
        ],
    )
    def test_other_errors_are_named(self, error: Exception, code: ReplyCode) -> None:
        assert code_of(error) is code

    async def test_a_command_that_is_not_served(self) -> None:
        for command in ("\x02", "\x03", "\x09"):
            request = f">> \x05{command}\x00\x01\0\0\0\0\0\0"
            await testing.run_transcript(
                socks5.server(connect=Echoes()), HELLO, CHOICE, request, failed(7), "<<"
            )

    async def test_an_address_type_that_is_not_known(self) -> None:
        request = ">> \x05\x01\x00\x02abcd"
        await testing.run_transcript(socks5.server(connect=Echoes()), HELLO, CHOICE, request, failed(8), "<<")

    async def test_a_path_is_no_host(self) -> None:
        request = ">> \x05\x01\x00\x03\x07unix:/x\x00\x00"
        await testing.run_transcript(socks5.server(connect=Echoes()), HELLO, CHOICE, request, failed(1), "<<")


class TestRules:
    async def test_a_private_target_is_refused_to_remote_clients(self) -> None:
        there = Echoes()
        request = ">> \x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50"
        await testing.run_transcript(socks5.server(connect=there), HELLO, CHOICE, request, failed(2), "<<")
        assert there.targets == []
        await testing.run_transcript(socks5.server(connect=there, private=True), HELLO, CHOICE, request, OK)
        assert there.targets == [Target("127.0.0.1", 80)]

    @pytest.mark.parametrize("asynchronous", [True, False])
    async def test_a_function_decides(self, asynchronous: bool) -> None:
        def now(user: socks5.User | None, target: Target) -> bool:
            return target.port == 80

        async def later(user: socks5.User | None, target: Target) -> bool:
            await asyncio.sleep(0)
            return now(user, target)

        server = socks5.server(connect=Echoes(), rules=later if asynchronous else now)
        await testing.run_transcript(server, HELLO, CHOICE, CONNECT, failed(2), "<<")
        await testing.run_transcript(server, HELLO, CHOICE, ">> \x05\x01\x00\x03\x09a.example\x00\x50", OK)

    async def test_each_user_has_rules(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING)
        server = socks5.server(
            auth={"john": "x", "jane": "x"},
            connect=Echoes(),
            rules=socks5.per_user({"john": socks5.allow("a.example:80"), "jane": socks5.allow("*:443")}),
        )
        talk = [">> \x05\x01\x02", "<< \x05\x02"]
        await testing.run_transcript(
            server, *talk, ">> \x01\x04john\x01x", "<< \x01\x00", CONNECT, failed(2), "<<"
        )
        assert "a.example:443 is not allowed for user 'john'" in caplog.text
        await testing.run_transcript(server, *talk, ">> \x01\x04jane\x01x", "<< \x01\x00", CONNECT, OK)


class TestSocks4:
    async def test_an_address(self) -> None:
        there = Echoes()
        server = socks5.server(connect=there, socks4=True, private=True)
        await testing.run_transcript(
            server, ">> \x04\x01\x00\x50\x7f\0\0\x01me\0", "<< \0\x5a" + "\0" * 6, ">> hi", "<< hi"
        )
        assert there.targets == [Target("127.0.0.1", 80)]

    async def test_a_name(self) -> None:
        there = Echoes()
        server = socks5.server(connect=there, socks4=True)
        await testing.run_transcript(
            server, ">> \x04\x01\x00\x50\0\0\0\x01\0a.example\0hi", "<< \0\x5a" + "\0" * 6, "<< hi"
        )
        assert there.targets == [Target("a.example", 80)]

    async def test_a_failure_is_a_rejection(self) -> None:
        server = socks5.server(connect=Fails(UnreachableError("no")), socks4=True)
        await testing.run_transcript(
            server, ">> \x04\x01\x00\x50\0\0\0\x01\0a.example\0", "<< \0\x5b" + "\0" * 6, "<<"
        )

    async def test_socks4_is_disabled_by_default(self) -> None:
        await testing.run_transcript(
            socks5.server(connect=Echoes()), ">> \x04\x01\x00\x50\x7f\0\0\x01\0", "<<"
        )

    def test_socks4_has_no_passwords(self) -> None:
        with pytest.raises(ConfigError, match="SOCKS4 has no passwords"):
            socks5.server(auth={"john": "secret"}, socks4=True)


async def test_a_slow_handshake_ends() -> None:
    async with testing.clock() as clock:
        server = socks5.server(connect=Echoes(), handshake_timeout=5)
        async with testing.connect(server) as stream:
            await stream.write(b"\x05\x01\x00")
            assert await stream.read() == b"\x05\x00"
            await clock.advance(5)
            assert await stream.read() == b""


async def test_the_handshake_timeout_does_not_count_the_relay() -> None:
    async with testing.clock() as clock:
        server = socks5.server(connect=Echoes(), handshake_timeout=5)
        async with testing.connect(server) as stream:
            await stream.write(b"\x05\x01\x00\x05\x01\x00\x03\x09a.example\x01\xbb")
            await converse(stream, CHOICE, OK)
            await clock.advance(60)
            await converse(stream, ">> still here", "<< still here")


async def test_a_relay_may_open_another_stream_to_the_target() -> None:
    there = Echoes()

    async def twice(bridge: Bridge) -> None:
        other = await bridge.connect(bridge.target)
        await other.aclose()

    await testing.run_transcript(socks5.server(connect=there, relay=twice), HELLO, CHOICE, CONNECT, OK, "<<")
    assert there.targets == [Target("a.example", 443)] * 2


def test_parts_of_the_wrong_kind_are_refused_when_it_is_built() -> None:
    handler = socks5.server()
    with pytest.raises(TypeError, match=r"socks5\.server\(relay=\) gives Bridge"):
        socks5.server(relay=handler)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="call it"):
        stack(socks5.server)
    assert describe(handler) == "socks5.server()"


async def test_a_client_that_leaves_is_not_connected_any_more() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def slow(target: Target) -> Stream:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async with serve(socks5.server(connect=slow), listen="127.0.0.1:0") as server:
        client = await tcp.connect()(Target("127.0.0.1", server.port))
        await converse(client, HELLO, CHOICE, CONNECT)
        await started.wait()
        await client.aclose()
        await cancelled.wait()
