"""The ClientHello: found in records, read field by field, refused with a reason."""

import re
import ssl
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama._core.errors import LlamaError, ProtocolError, TooLargeError
from llama.tls._client_hello.client_hello import ClientHello, HelloReader, find
from tests.tls.client_hello import hellos
from tests.tls.client_hello.hellos import client_hello, largest_hello, message, record, records

PLAIN = client_hello(hellos.sni(b"a.example"), hellos.alpn(b"h2", b"http/1.1"))


def refusal(data: bytes) -> str:
    with pytest.raises(ProtocolError) as caught:
        find(data)
    return str(caught.value)


# Finding it


def test_a_hello_in_one_record_is_found() -> None:
    hello = find(record(PLAIN))
    assert hello is not None
    assert hello.message == PLAIN
    assert hello.server_name == "a.example"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_like_object_is_accepted(kind: Callable[[bytes], bytes]) -> None:
    assert find(kind(record(PLAIN))) == ClientHello(PLAIN)


def test_none_is_returned_until_the_hello_is_complete() -> None:
    data = record(PLAIN)
    assert [find(data[:end]) for end in range(len(data))] == [None] * len(data)
    assert find(data) == ClientHello(PLAIN)


def test_records_after_the_hello_are_ignored() -> None:
    assert find(record(PLAIN) + record(b"\1", kind=20) + b"early data") == ClientHello(PLAIN)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 50])
def test_a_hello_split_over_records_is_joined(size: int) -> None:
    assert find(records(PLAIN, size)) == ClientHello(PLAIN)


def test_a_reader_takes_a_byte_at_a_time() -> None:
    reader = HelloReader()
    found = [reader.feed(bytes([byte])) for byte in records(PLAIN, 7)]
    assert found[:-1] == [None] * (len(found) - 1)
    assert found[-1] == ClientHello(PLAIN)


@pytest.mark.parametrize("record_size", [1, 16_384])
def test_the_largest_hello_is_accepted_in_records_of_any_size(record_size: int) -> None:
    hello = largest_hello()
    assert len(hello) == 4 + 131_396
    assert HelloReader().feed(records(hello, record_size)) == ClientHello(hello)


@given(st.data())
def test_record_and_segment_boundaries_do_not_matter(data: st.DataObject) -> None:
    wire = b"".join(record(part) for part in cut(data, PLAIN))
    reader = HelloReader()
    found = [reader.feed(part) for part in cut(data, wire)]
    assert found[-1] == ClientHello(PLAIN)
    assert found[:-1] == [None] * (len(found) - 1)
    assert find(wire) == found[-1]


def cut(data: st.DataObject, whole: bytes) -> list[bytes]:
    ends = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1), max_size=12)))
    return [whole[start:end] for start, end in zip([0, *ends], [*ends, len(whole)], strict=True)]


# What is no ClientHello


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "a plain HTTP request on a TLS port"),
        (b"CONNECT a.example:443 HTTP/1.1\r\n", "a plain HTTP request on a TLS port"),
        (b"GET http://a.example/ HTTP/1.1\r\n", "a plain HTTP request to a proxy on a TLS port"),
        (b"PRI * HTTP/2.0\r\n", "plain HTTP/2 on a TLS port"),
        (b"PROXY TCP4 127.0.0.1 ", "a PROXY protocol header where TLS was expected"),
        (b"\r\n\r\n\0\r\nQUIT\n", "a PROXY protocol header where TLS was expected"),
        (b"SSH-2.0-OpenSSH_9.7\r\n", "an SSH client on a TLS port"),
        (b"\x80\x2e\x01\x00\x02\x00\x15", "an SSLv2 hello, which offers SSL 2.0"),
        (b"\x80\x67\x01\x03\x01\x00\x4e", "an SSLv2 hello, which offers TLS 1.0"),
        (b"\x15\x03\x01\x00\x02\x02\x30", "an alert (fatal, unknown_ca) where a ClientHello was expected"),
        (b"\x15\x03\x01\x00\x02\x07\xaa", "an alert (7, 170) where a ClientHello was expected"),
        (b"\x17\x03\x03\x00\x20", "an application_data record where a ClientHello was expected"),
        (b"\x05\x01\x00\x05\x01\x00", "not TLS: first bytes 0x0501000501"),
        (b"\x16\x02\x01\x00\x05", "not TLS: first bytes 0x1602010005"),
        (b"\xff\xff\xff\xff\xff", "not TLS: first bytes 0xffffffffff"),
    ],
)
def test_the_reason_describes_the_bytes_received(data: bytes, reason: str) -> None:
    assert refusal(data) == reason
    reader = HelloReader()
    with pytest.raises(ProtocolError, match=re.escape(reason)):
        for byte in data:
            reader.feed(bytes([byte]))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (record(b""), "a TLS record of 0 bytes: expected 1 to 16384"),
        (record(bytes(16385)), "a TLS record of 16385 bytes: expected 1 to 16384"),
        (record(PLAIN[:9]) + record(b""), "a TLS record of 0 bytes: expected 1 to 16384"),
        (record(PLAIN[:9]) + record(b"\2\x28", kind=21), "an alert inside a ClientHello"),
        (record(PLAIN[:9]) + record(b"\1", kind=99), "a record of type 99 inside a ClientHello"),
        (
            record(message(2, b"")),
            "a handshake message of type 2 (server_hello) where a ClientHello was expected",
        ),
        (
            record(message(99, b"")),
            "a handshake message of type 99 (unknown) where a ClientHello was expected",
        ),
        (record(PLAIN + b"12"), "2 bytes follow the ClientHello in its record"),
    ],
)
def test_unexpected_records_and_messages_are_rejected(data: bytes, reason: str) -> None:
    assert refusal(data) == reason


def test_a_wrong_message_is_rejected_before_it_is_complete() -> None:
    assert "server_hello" in refusal(record(message(2, bytes(500)))[:6])


def test_a_hello_that_announces_too_many_bytes_is_rejected_at_once() -> None:
    with pytest.raises(TooLargeError, match="a ClientHello of 140004 bytes: the limit is 131400"):
        find(record(message(1, bytes(140_000))[:16384]))
    with pytest.raises(TooLargeError, match=f"a ClientHello of {len(PLAIN)} bytes: the limit is 40"):
        find(record(PLAIN), limit=40)


# Its fields


def test_all_fields_are_read() -> None:
    hello = ClientHello(
        client_hello(
            hellos.sni(b"a.example"),
            hellos.groups(0x0A0A, 29, 23),
            hellos.point_formats(0, 1),
            hellos.algorithms(0x0403, 0x0804),
            hellos.alpn(b"h2", b"http/1.1"),
            hellos.versions(0x0304, 0x0303),
            hellos.key_share(29),
            (0xFE0D, b"\0rest"),
            (42, b""),
            (41, b"psk"),
            session_id=b"session",
            ciphers=(0x1301, 0xC02B),
            methods=b"\0\1",
        )
    )
    hello.validate()
    assert hello.legacy_version == 0x0303
    assert hello.random == bytes(range(32))
    assert hello.session_id == b"session"
    assert hello.cipher_suites == (0x1301, 0xC02B)
    assert hello.compression_methods == (0, 1)
    assert [kind for kind, _ in hello.extensions] == [0, 10, 11, 13, 16, 43, 51, 0xFE0D, 42, 41]
    assert hello.extension(41) == b"psk"
    assert hello.server_name == "a.example"
    assert hello.supported_groups == (0x0A0A, 29, 23)
    assert hello.ec_point_formats == (0, 1)
    assert hello.signature_algorithms == (0x0403, 0x0804)
    assert hello.alpn == ("h2", "http/1.1")
    assert hello.supported_versions == (0x0304, 0x0303)
    assert hello.key_share_groups == (29,)
    assert (hello.psk, hello.early_data, hello.ech, hello.grease) == (True, True, True, True)
    assert repr(hello) == "<ClientHello for a.example, alpn h2,http/1.1>"


def test_a_hello_without_extensions_offers_tls_1_2() -> None:
    hello = ClientHello(client_hello(ciphers=[0x002F]))
    hello.validate()
    assert hello.extensions == ()
    assert (hello.server_name, hello.alpn, hello.supported_versions) == (None, (), (0x0303,))
    assert (hello.supported_groups, hello.signature_algorithms, hello.key_share_groups) == ((), (), ())
    assert (hello.psk, hello.early_data, hello.ech, hello.grease) == (False, False, False, False)


def test_an_empty_key_share_is_valid() -> None:
    assert ClientHello(client_hello((51, b"\0\0"))).key_share_groups == ()


def test_protocol_names_that_are_not_ascii_keep_every_byte() -> None:
    hello = ClientHello(client_hello(hellos.alpn(b"\xff\x00h3")))
    assert hello.alpn[0].encode("latin-1") == b"\xff\x00h3"


@pytest.mark.parametrize(
    "where",
    [
        client_hello(ciphers=(0x1301, 0xDADA)),
        client_hello((0x2A2A, b"")),
        client_hello(hellos.groups(29, 0xFAFA)),
        client_hello(hellos.versions(0x3A3A, 0x0304)),
    ],
)
def test_grease_is_found_in_every_list(where: bytes) -> None:
    assert ClientHello(where).grease


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        (b"a.example", "a.example"),
        (b"A.Example", "a.example"),
        (b"a.example.", "a.example"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b"my_app.internal", "my_app.internal"),
        (b"localhost", "localhost"),
        (b"127.0.0.1", None),
        (b"::1", None),
        (b"[2001:db8::1]", None),
    ],
)
def test_the_server_name_is_lower_case_and_not_an_address(sent: bytes, name: str | None) -> None:
    assert ClientHello(client_hello(hellos.sni(sent))).server_name == name


@pytest.mark.parametrize(
    "sent",
    [
        b".",
        b"a..example",
        b".a.example",
        b"-a.example",
        b"a b",
        b"localhost:8443",
        b"[::1]:443",
        b"10.0.0.1:443",
        b"b\xc3\xbccher.example",
        b"a/b",
        b"*.example",
        b"a.example..",
        b"1.2.3.4.5",
        b"a." * 127 + b"a",
        b"a" * 64 + b".example",
    ],
)
def test_a_server_name_that_is_not_a_host_name_is_none(sent: bytes) -> None:
    hello = ClientHello(client_hello(hellos.sni(sent)))
    hello.validate()
    assert hello.server_name is None


@pytest.mark.parametrize("sent", [b"", b"a\0.example", b"a" * 256])
def test_a_malformed_server_name_is_refused(sent: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"malformed server.name"):
        _ = ClientHello(client_hello(hellos.sni(sent))).server_name


def test_two_host_names_are_refused() -> None:
    hello = ClientHello(client_hello(hellos.sni(b"a.example", b"b.example")))
    with pytest.raises(ProtocolError, match="2 host names in server_name"):
        _ = hello.server_name


def test_names_of_other_types_are_ignored() -> None:
    other = b"\7" + hellos.vector(2, b"what")
    host = b"\0" + hellos.vector(2, b"a.example")
    assert ClientHello(client_hello((0, hellos.vector(2, other + host)))).server_name == "a.example"
    assert ClientHello(client_hello((0, hellos.vector(2, other)))).server_name is None


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (client_hello((5, b""), (5, b"")), "an extension twice"),
        (client_hello((41, b""), (43, b"\2\3\4")), "pre_shared_key before other extensions"),
        (client_hello(session_id=bytes(33)), "a session id of 33 bytes: at most 32"),
        (client_hello(ciphers=[]), "0 bytes of cipher suites"),
        (client_hello(methods=b""), "no compression method"),
        (client_hello(block=b"\0"), "ends inside a field"),
        (client_hello(block=b"\0\5\0\0\0\0"), "announces 5 bytes of extensions and has 4"),
        (client_hello(block=b"\0\4\0\0\0\0\0"), "announces 4 bytes of extensions and has 5"),
        (client_hello(block=b"\0\4\0\0\0\1"), "ends inside extension 0"),
        (client_hello(block=b"\0\3\0\0\0"), "ends inside a field"),
        (message(1, bytes(20)), "ends inside a field"),
        (client_hello()[:-1], "ends inside a field"),
        (client_hello()[:1] + b"\0\0\1" + client_hello()[4:], "not a ClientHello: 47 bytes"),
        (client_hello((0, b"")), "malformed server_name"),
        (client_hello((0, b"\0\0")), "malformed server_name"),
        (client_hello((0, b"\0\4\0\0\1ab")), "malformed server_name"),
        (client_hello((0, b"\0\4\0\0\2a")), "ends inside server_name"),
        (client_hello((10, b"\0\1\0")), "1 bytes in supported_groups"),
        (client_hello((11, b"\0")), "malformed ec_point_formats"),
        (client_hello((13, b"\0\0")), "malformed signature_algorithms"),
        (client_hello((16, b"\0\1\0")), "empty protocol name"),
        (client_hello((16, b"\0\3\5h2")), "ends inside ALPN"),
        (client_hello((43, b"\3\3\4")), "malformed supported_versions"),
        (client_hello((51, b"\0\4\0\x1d\0\0")), "empty key in key_share"),
        (client_hello((51, b"\0\3\0\x1d\0")), "ends inside key_share"),
        (client_hello((51, b"\0\0\0")), "bytes after key_share's list"),
        (client_hello((51, b"")), "ends inside key_share"),
    ],
)
def test_lengths_that_do_not_match_are_rejected(hello: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        ClientHello(hello).validate()
    assert repr(ClientHello(hello)).startswith("<")


def test_finding_a_hello_does_not_parse_it() -> None:
    hello = find(record(client_hello((5, b""), (5, b""))))
    assert hello is not None
    with pytest.raises(ProtocolError):
        hello.validate()


# Properties over many hellos

extensions = st.dictionaries(
    st.integers(0, 65535).filter(lambda kind: kind not in (0, 10, 11, 13, 16, 41, 43, 51)),
    st.binary(max_size=40),
    max_size=12,
)


@given(
    extensions,
    st.lists(st.integers(0, 65535), min_size=1, max_size=40),
    st.binary(max_size=32),
    st.binary(min_size=1, max_size=3),
)
def test_a_built_hello_is_parsed_back(
    some: dict[int, bytes], ciphers: list[int], session_id: bytes, methods: bytes
) -> None:
    hello = ClientHello(client_hello(*some.items(), ciphers=ciphers, session_id=session_id, methods=methods))
    hello.validate()
    assert hello.extensions == tuple(some.items())
    assert hello.cipher_suites == tuple(ciphers)
    assert (hello.session_id, hello.compression_methods) == (session_id, tuple(methods))
    assert hello.ja4.startswith(f"t12{'d' if 0 in some else 'i'}")


def read_all(hello: ClientHello) -> None:
    for name in dir(ClientHello):
        if isinstance(getattr(ClientHello, name), property):
            getattr(hello, name)


FULL = client_hello(
    hellos.sni(b"a.example"),
    hellos.groups(29),
    hellos.point_formats(0),
    hellos.algorithms(0x0403),
    hellos.alpn(b"h2"),
    hellos.versions(0x0304),
    hellos.key_share(29),
    (41, b"psk"),
)


@given(st.lists(st.tuples(st.integers(0, len(FULL) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_changed_byte_is_parsed_or_rejected(changes: list[tuple[int, int]]) -> None:
    data = bytearray(FULL)
    for at, byte in changes:
        data[at] = byte
    try:
        hello = ClientHello(bytes(data))
        hello.validate()
    except ProtocolError:
        return
    read_all(hello)  # after validate nothing raises


@given(st.binary(max_size=200))
def test_random_bytes_are_rejected_or_incomplete(data: bytes) -> None:
    for start in (b"", b"\x16\x03\x01", record(PLAIN)[:20]):
        try:
            hello = find(start + data)
            if hello is not None:
                hello.validate()
        except LlamaError:
            pass


@given(st.binary(max_size=200))
def test_random_messages_raise_only_protocol_errors(data: bytes) -> None:
    for whole in (data, message(1, data), PLAIN[:40] + data, FULL[: -len(data)] if data else FULL):
        with_errors(whole)


def with_errors(whole: bytes) -> None:
    try:
        read_all(ClientHello(whole))
    except ProtocolError:
        pass


# What Python's own OpenSSL says


def test_the_hello_of_openssl_is_read() -> None:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="a.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = find(outgoing.read())
    assert hello is not None
    hello.validate()
    assert hello.server_name == "a.example"
    assert hello.alpn == ("h2", "http/1.1")
    assert 0x0304 in hello.supported_versions
    assert hello.key_share_groups
    assert hello.ja4.startswith("t13d")
