"""The server's part of the handshake, up to the request."""

from __future__ import annotations

from dataclasses import dataclass

from llama._core.errors import ProtocolError, RefusedError
from llama._core.server import User
from llama._core.stream import Stream
from llama.socks5._auth import Check
from llama.socks5._read_message import read_message
from llama.socks5._reply_codes import code_of
from llama.socks5._wire import socks4 as wire4
from llama.socks5._wire import socks5 as wire
from llama.socks5._wire.address import UNSPECIFIED, Address


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """A client's request, with the method to reply to it."""

    stream: Stream
    version: int
    command: int
    address: Address
    user: User | None

    async def reply(self, code: wire.ReplyCode, address: Address = UNSPECIFIED) -> None:
        """Reply to the request; SOCKS4 has only one code for all failures."""
        if self.version == wire.VERSION:
            message = wire.encode_reply(code, *address)
        else:
            granted = code is wire.ReplyCode.SUCCEEDED
            message = wire4.encode_reply(wire4.GRANTED if granted else wire4.REJECTED, *address)
        await self.stream.write(message)


async def negotiate(stream: Stream, check: Check | None, *, socks4: bool) -> ClientRequest | None:
    """Authenticate a client and read its request; None if it disconnects without sending anything.

    Raises ProtocolError or RefusedError, after sending the reply that the RFCs define.
    """
    first = await stream.read(1024)
    if not first:
        return None
    if first[0] == wire4.VERSION and socks4:
        found = await read_message(stream, wire4.parse_request, "SOCKS4 request", first)
        return ClientRequest(stream, wire4.VERSION, found.command, found.address, None)
    if first[0] != wire.VERSION:
        raise ProtocolError(f"a SOCKS greeting of version {first[0]}: expected {'4 or ' * socks4}5")
    user = await _authenticate(stream, check, first)
    try:
        request = await read_message(stream, wire.parse_request, "request")
    except ProtocolError as error:
        await stream.write(wire.encode_reply(code_of(error)))
        raise
    return ClientRequest(stream, wire.VERSION, *request, user)


async def _authenticate(stream: Stream, check: Check | None, first: bytes) -> User | None:
    offered = await read_message(stream, wire.parse_greeting, "greeting", first)
    wanted = wire.NO_AUTH if check is None else wire.PASSWORD
    if wanted not in offered:
        await stream.write(wire.encode_choice(wire.NO_METHOD))
        raise RefusedError(
            f"the client offers authentication {list(offered)}, "
            + ("but not 'no authentication'" if check is None else "but not user name and password")
        )
    await stream.write(wire.encode_choice(wanted))
    if check is None:
        return None
    name, password = await read_message(stream, wire.parse_credentials, "password")
    if not await check(name, password):
        await stream.write(wire.AUTH_FAILURE)
        raise RefusedError(f"user {name!r} is unknown or sent a wrong password")
    await stream.write(wire.AUTH_SUCCESS)
    user = User(name)
    stream.extensions.set(user)
    return user
