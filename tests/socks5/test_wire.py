"""SOCKS messages as transcripts, a byte at a time, and as whatever a hostile peer may send."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama import ProtocolError
from llama.socks5._reply_codes import code_of
from llama.socks5._wire import socks4 as wire4
from llama.socks5._wire import socks5 as wire
from llama.socks5._wire.address import Address, encode_address

M = TypeVar("M")
PARSERS: list[Callable[[bytes], Any]] = [
    wire.parse_greeting,
    wire.parse_choice,
    wire.parse_credentials,
    wire.parse_auth_status,
    wire.parse_request,
    wire.parse_reply,
    wire4.parse_request,
]


def byte_by_byte(parse: Callable[[bytes], tuple[M, int] | None], data: bytes) -> M:
    """Feed a message a byte at a time: it is whole with its last byte, not before, and takes nothing after."""
    for end in range(len(data)):
        assert parse(data[:end]) is None
    found = parse(data + b"more")
    assert found is not None
    message, used = found
    assert used == len(data)
    return message


def test_a_client_connects_with_a_password() -> None:
    assert byte_by_byte(wire.parse_greeting, b"\x05\x02\x00\x02") == b"\x00\x02"
    assert byte_by_byte(wire.parse_choice, b"\x05\x02") == wire.PASSWORD
    assert byte_by_byte(wire.parse_credentials, b"\x01\x04john\x06secret") == ("john", "secret")
    assert byte_by_byte(wire.parse_auth_status, b"\x01\x00") == 0
    asked = byte_by_byte(wire.parse_request, b"\x05\x01\x00\x03\x09a.example\x01\xbb")
    assert asked == wire.Request(wire.Command.CONNECT, Address("a.example", 443))
    told = byte_by_byte(wire.parse_reply, b"\x05\x00\x00\x01\x7f\x00\x00\x01\x04\x38")
    assert told == wire.Reply(wire.ReplyCode.SUCCEEDED, Address("127.0.0.1", 1080))


def test_the_same_messages_are_written() -> None:
    assert wire.encode_greeting(b"\x00\x02") == b"\x05\x02\x00\x02"
    assert wire.encode_choice(wire.NO_METHOD) == b"\x05\xff"
    assert wire.encode_credentials("john", "secret") == b"\x01\x04john\x06secret"
    request = wire.encode_request(wire.Command.CONNECT, "a.example", 443)
    assert request == b"\x05\x01\x00\x03\x09a.example\x01\xbb"
    assert wire.encode_reply(wire.ReplyCode.REFUSED) == b"\x05\x05\x00\x01\0\0\0\0\0\0"
    assert (
        wire.encode_reply(wire.ReplyCode.SUCCEEDED, "::1", 80) == b"\x05\0\0\x04" + bytes(15) + b"\x01\0\x50"
    )


@pytest.mark.parametrize(
    ("raw", "address"),
    [
        (b"\x01\x7f\x00\x00\x01\x00\x50", "127.0.0.1:80"),
        (b"\x04" + bytes(15) + b"\x01\x00\x50", "[::1]:80"),
        (b"\x03\x09localhost\xff\xff", "localhost:65535"),
        (b"\x03\x03::1\x00\x50", "[::1]:80"),
        (b"\x03\x05b\xc3\xbcch\x00\x50", "büch:80"),
    ],
)
def test_addresses_of_every_type(raw: bytes, address: str) -> None:
    request = byte_by_byte(wire.parse_request, b"\x05\x01\x00" + raw)
    assert str(request.address) == address


@pytest.mark.parametrize(
    "name", [b"", b"unix:/run/secret", b"a b", b"a\0b", b"a\nb", b"fe80::1%eth0", b"a:80", b"[::1]", b"\xff"]
)
def test_a_name_that_is_no_host_name_is_refused(name: bytes) -> None:
    with pytest.raises(ProtocolError, match="host name"):
        wire.parse_request(b"\x05\x01\x00\x03%c%b\x00\x50" % (len(name), name))


def test_an_unknown_address_type_is_distinguished_from_other_errors() -> None:
    with pytest.raises(ProtocolError, match="type 2") as caught:
        wire.parse_request(b"\x05\x01\x00\x02")
    assert code_of(caught.value) is wire.ReplyCode.ADDRESS_NOT_SUPPORTED


@pytest.mark.parametrize(
    ("parse", "data", "words"),
    [
        (wire.parse_greeting, b"\x04\x01", "version 4: expected 5"),
        (wire.parse_greeting, b"GET / HTTP/1.1", "version 71: expected 5"),
        (wire.parse_credentials, b"\x05\x01", "version 5: expected 1"),
        (wire.parse_request, b"\x01", "version 1: expected 5"),
        (wire.parse_reply, b"HTTP/1.1 400 Bad Request", "a SOCKS reply of version 72"),
        (wire4.parse_request, b"\x05", "version 5: expected 4"),
    ],
)
def test_another_version_is_refused_at_its_first_byte(
    parse: Callable[[bytes], object], data: bytes, words: str
) -> None:
    with pytest.raises(ProtocolError, match=words):
        parse(data[:1])


@pytest.mark.parametrize("host", ["", "a" * 256, "a b", "unix:/x", "a.example:80"])
def test_a_host_that_cannot_be_sent_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="invalid host name"):
        encode_address(host, 80)


@pytest.mark.parametrize(("user", "password"), [("", "x"), ("x", ""), ("x" * 256, "x"), ("x", "ü" * 128)])
def test_credentials_that_do_not_fit_are_refused(user: str, password: str) -> None:
    with pytest.raises(ValueError, match="takes 1 to 255"):
        wire.encode_credentials(user, password)


def test_socks4_with_an_address() -> None:
    request = byte_by_byte(wire4.parse_request, b"\x04\x01\x00\x50\x7f\x00\x00\x01john\0")
    assert request == wire4.Socks4Request(wire4.CONNECT, Address("127.0.0.1", 80), b"john")
    assert wire4.encode_reply(wire4.GRANTED, "127.0.0.1", 80) == b"\0\x5a\0\x50\x7f\0\0\x01"
    assert wire4.encode_reply(wire4.REJECTED, "::1", 80) == b"\0\x5b\0\x50\0\0\0\0"


def test_socks4a_with_a_name() -> None:
    request = byte_by_byte(wire4.parse_request, b"\x04\x02\x00\x50\0\0\0\x01\0a.example\0")
    assert request == wire4.Socks4Request(wire4.BIND, Address("a.example", 80), b"")


@pytest.mark.parametrize("start", [b"\x04\x01\x00\x50\x7f\x00\x00\x01", b"\x04\x01\x00\x50\0\0\0\x01\0"])
def test_socks4_fields_are_bounded(start: bytes) -> None:
    assert wire4.parse_request(start + b"x" * 255) is None
    with pytest.raises(ProtocolError, match="more than 255 bytes"):
        wire4.parse_request(start + b"x" * 256)


def test_datagrams() -> None:
    raw = b"\0\0\0\x03\x09a.example\0\x35question"
    assert wire.parse_datagram(raw) == wire.Datagram(0, Address("a.example", 53), b"question")
    assert wire.encode_datagram("a.example", 53, b"question") == raw
    assert wire.parse_datagram(b"\0\0\x81" + raw[3:]).fragment == 0x81


@pytest.mark.parametrize("raw", [b"", b"\0\0\0", b"\0\0\0\x01\0\0\0\0\0", b"\0\x01\0\x01\0\0\0\0\0\0"])
def test_a_malformed_datagram_is_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.parse_datagram(raw)


@given(st.binary(max_size=600))
def test_any_bytes_parse_to_a_message_an_error_or_incomplete(data: bytes) -> None:
    for parse in PARSERS:
        try:
            found = parse(data)
        except ProtocolError:
            continue
        if found is None:
            assert len(data) < wire.MAX_LENGTH + 9
        else:
            assert 0 < found[1] <= len(data)


@given(st.binary(max_size=80))
def test_any_datagram_parses_or_is_an_error(data: bytes) -> None:
    try:
        datagram = wire.parse_datagram(data)
    except ProtocolError:
        return
    assert data.endswith(datagram.data)


@given(st.sampled_from(PARSERS), st.binary(max_size=300), st.data())
def test_later_bytes_do_not_change_a_parsed_message(
    parse: Callable[[bytes], Any], data: bytes, draw: st.DataObject
) -> None:
    start = data[: draw.draw(st.integers(0, len(data)))]
    try:
        early = parse(start)
    except ProtocolError:
        with pytest.raises(ProtocolError):
            parse(data)
        return
    if early is not None:
        assert parse(data) == early


@given(
    st.one_of(st.ip_addresses().map(str), st.from_regex(r"[a-z0-9.-]{1,255}", fullmatch=True)),
    st.integers(0, 65535),
)
def test_what_is_written_is_read_back(host: str, port: int) -> None:
    found = wire.parse_request(wire.encode_request(wire.Command.BIND, host, port))
    assert found is not None
    assert found[0] == wire.Request(wire.Command.BIND, Address(host, port))
