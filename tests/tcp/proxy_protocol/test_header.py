"""The PROXY protocol: transcripts in both versions, what is refused, and that what is written is read."""

import re
from typing import Literal, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama._core.errors import LlamaError, ProtocolError, TooLargeError
from llama.tcp._proxy_protocol.header import SIGNATURE, Address, Family, ProxyHeader, parse
from llama.tcp._proxy_protocol.tlv import ProxySSL, Tlv, TlvType, crc32c

A, B = ("192.0.2.1", 56324), ("198.51.100.2", 443)
A6, B6 = ("2001:db8::1", 56324), ("2001:db8::2", 443)


def v2(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return SIGNATURE + bytes([command, family]) + size.to_bytes(2, "big") + body


def tlv(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + len(content).to_bytes(2, "big") + content


IP4 = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + (56324).to_bytes(2, "big") + (443).to_bytes(2, "big")


# Transcripts


@pytest.mark.parametrize(
    ("line", "header"),
    [
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", ProxyHeader("proxy", "tcp4", A, B)),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n", ProxyHeader("proxy", "tcp6", A6, B6)),
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.2 0 65535\r\n",
            ProxyHeader("proxy", "tcp4", (A[0], 0), (B[0], 65535)),
        ),
        (b"PROXY UNKNOWN\r\n", ProxyHeader("proxy")),
    ],
)
def test_a_version_1_line_is_parsed(line: bytes, header: ProxyHeader) -> None:
    assert parse(line + b"GET /") == (header, len(line))
    assert header.encode_v1() == line


def test_the_longest_line_of_version_1_is_107_bytes() -> None:
    address = ":".join(["ffff"] * 8)
    line = f"PROXY TCP6 {address} {address} 65535 65535\r\n".encode()
    assert len(line) == 104
    unknown = b"PROXY UNKNOWN " + line[6:-2] + b"\r\n"
    assert parse(line) == (ProxyHeader("proxy", "tcp6", (address, 65535), (address, 65535)), 104)
    assert parse(b"PROXY UNKNOWN" + b" " * 92 + b"\r\n") == (ProxyHeader("proxy"), 107)
    with pytest.raises(ProtocolError, match="a PROXY line without an end within 107 bytes"):
        parse(unknown)


def test_the_rest_of_an_unknown_line_is_ignored() -> None:
    assert parse(b"PROXY UNKNOWN ffff::1 \xff 1 2 3\r\n") == (ProxyHeader("proxy"), 31)


def test_addresses_are_normalized_to_their_shortest_form() -> None:
    found = parse(b"PROXY TCP6 2001:DB8:0:0:0:0:0:1 ::ffff:192.0.2.1 1 2\r\n")
    assert found is not None
    assert found[0].source == ("2001:db8::1", 1)
    assert found[0].destination in (("::ffff:c000:201", 2), ("::ffff:192.0.2.1", 2))


def test_a_version_2_header_is_parsed() -> None:
    data = bytes.fromhex("0d0a0d0a000d0a515549540a 21 11 000c c0000201 c6336402 dc04 01bb")
    header = ProxyHeader("proxy", "tcp4", A, B)
    assert parse(data + b"\x16\x03\x01") == (header, 28)
    assert header.encode_v2() == data


def test_a_version_2_header_with_ipv6_and_tlvs_is_parsed() -> None:
    data = bytes.fromhex(
        "0d0a0d0a000d0a515549540a 21 21 0035"
        "20010db8000000000000000000000001 20010db8000000000000000000000002 dc04 01bb"
        "01 0002 6832"  # ALPN: h2
        "02 0009 612e6578616d706c65"  # authority: a.example
    )
    header = ProxyHeader("proxy", "tcp6", A6, B6, ((TlvType.ALPN, b"h2"), (TlvType.AUTHORITY, b"a.example")))
    assert parse(data) == (header, 69)
    assert header.encode_v2() == data
    assert (header.alpn, header.authority, header.unique_id, header.netns) == (b"h2", "a.example", None, None)
    assert header.ssl is None


@pytest.mark.parametrize("body", [b"", IP4, b"\xff" * 40])
@pytest.mark.parametrize("family", [0x00, 0x11, 0x99])
def test_a_local_header_ignores_its_addresses_and_tlvs(body: bytes, family: int) -> None:
    assert parse(v2(0x20, family, body)) == (ProxyHeader("local"), 16 + len(body))
    assert ProxyHeader("local").encode_v2() == v2(0x20, 0, b"")
    assert ProxyHeader("local").encode_v1() == b"PROXY UNKNOWN\r\n"


def test_datagram_and_unix_families_are_parsed() -> None:
    udp = ProxyHeader("proxy", "udp4", A, B)
    assert udp.encode_v2() == v2(0x21, 0x12, IP4)
    assert udp.encode_v1() == b"PROXY UNKNOWN\r\n"
    unix = ProxyHeader("proxy", "unix", "/run/a", "\0abstract")
    assert unix.encode_v2() == v2(0x21, 0x31, b"/run/a".ljust(108, b"\0") + b"\0abstract".ljust(108, b"\0"))
    assert parse(unix.encode_v2()) == (unix, 232)
    unnamed = ProxyHeader("proxy", "unix-datagram", "", "/" + "a" * 107)
    assert parse(unnamed.encode_v2()) == (unnamed, 232)


def test_a_path_ends_at_nul() -> None:
    found = parse(v2(0x21, 0x31, b"/a\0junk".ljust(108, b"\0") + bytes(108)))
    assert found is not None
    assert (found[0].source, found[0].destination) == ("/a", "")


def test_a_header_without_addresses_may_have_tlvs() -> None:
    data = v2(0x21, 0x00, tlv(TlvType.UNIQUE_ID, b"7"))
    assert parse(data) == (ProxyHeader("proxy", tlvs=((TlvType.UNIQUE_ID, b"7"),)), 20)


def test_padding_is_removed_and_unknown_tlvs_are_kept() -> None:
    data = v2(0x21, 0x11, IP4 + tlv(TlvType.NOOP, bytes(9)) + tlv(0xE0, b"own") + tlv(TlvType.NOOP, b""))
    assert parse(data) == (ProxyHeader("proxy", "tcp4", A, B, ((0xE0, b"own"),)), len(data))


def test_the_checksum_is_verified() -> None:
    header = ProxyHeader("proxy", "tcp4", A, B, ((TlvType.ALPN, b"h2"),))
    data = header.encode_v2(checksum=True)
    assert data[-7:-4] == b"\3\0\4"
    assert parse(data) == (header, len(data))
    for at in range(16, len(data)):
        if at in (28, 29, 30, 33, 34, 35):  # a changed type or length has other complaints
            continue
        wrong = bytearray(data)
        wrong[at] ^= 1
        with pytest.raises(ProtocolError, match="the checksum of a PROXY header is wrong"):
            parse(wrong)


def test_the_checksum_may_be_at_any_position() -> None:
    body = IP4 + tlv(TlvType.CRC32C, bytes(4)) + tlv(TlvType.ALPN, b"h2")
    data = v2(0x21, 0x11, body)
    data = data[:31] + crc32c(data).to_bytes(4, "big") + data[35:]
    assert parse(data) == (ProxyHeader("proxy", "tcp4", A, B, ((TlvType.ALPN, b"h2"),)), len(data))


def test_crc32c_against_its_published_values() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_tls_information_is_parsed() -> None:
    content = (
        bytes.fromhex("07 00000000") + tlv(0x21, b"TLSv1.3") + tlv(0x22, "jürgen".encode()) + tlv(0x99, b"?")
    )
    found = parse(v2(0x21, 0x11, IP4 + tlv(TlvType.SSL, content)))
    assert found is not None
    ssl = found[0].ssl
    assert ssl is not None
    assert ssl == ProxySSL(
        certificate_now=True,
        certificate_in_session=True,
        verified=True,
        version="TLSv1.3",
        common_name="jürgen",
    )
    assert ssl.encode() == content[:-4]


def test_without_a_certificate_the_client_is_not_verified() -> None:
    assert not ProxySSL.decode(b"\1\0\0\0\0").verified
    assert not ProxySSL.decode(b"\3\0\0\0\1").verified
    assert ProxySSL.decode(b"\3\0\0\0\0").verified


# What is refused


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n", "it does not end in CR LF"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n", "expected TCP4 or TCP6"),
        (b"PROXY TCP4 192.0.2.1  198.51.100.2 1 2\r\n", "expected TCP4 or TCP6"),
        (b"PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n", "expected TCP4 or TCP6"),
        (b"PROXY tcp4 192.0.2.1 198.51.100.2 1 2\r\n", "expected TCP4 or TCP6"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n", "expected TCP4 or TCP6"),
        (b"PROXY \r\n", "expected TCP4 or TCP6"),
        (b"PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n", "192.0.2.01"),
        (b"PROXY TCP4 192.0.2 198.51.100.2 1 2\r\n", "192.0.2"),
        (b"PROXY TCP4 ::1 ::1 1 2\r\n", "::1"),
        (b"PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n", "192.0.2.1"),
        (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "has a zone"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n", "'01' is not a port"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n", "65536 is not a port"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 -1 2\r\n", "'-1' is not a port"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 \xb2 2\r\n", "is not a port"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 1_0 2\r\n", "'1_0' is not a port"),
    ],
)
def test_a_malformed_line_is_refused(line: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match="a malformed PROXY line .*" + re.escape(reason)):
        parse(line)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"G", "not a PROXY protocol header: first bytes 0x47"),
        (b"PROXYTCP4", "not a PROXY protocol header: first bytes 0x50524f585954435034"),
        (b"\r\n\r\n\r", "not a PROXY protocol header"),
        (b"\x16\x03\x01", "not a PROXY protocol header"),
        (v2(0x11, 0x11, IP4), "version and command 0x11: expected 0x20 or 0x21"),
        (v2(0x22, 0x11, IP4), "version and command 0x22"),
        (v2(0x21, 0x13, IP4), "family and transport 0x13 are not known"),
        (v2(0x21, 0x10, IP4), "family and transport 0x10 are not known"),
        (v2(0x21, 0x41, IP4), "family and transport 0x41 are not known"),
        (v2(0x21, 0x11, IP4[:-1]), "a PROXY header for tcp4 ends inside its addresses"),
        (v2(0x21, 0x21, IP4), "a PROXY header for tcp6 ends inside its addresses"),
        (v2(0x21, 0x31, IP4), "a PROXY header for unix ends inside its addresses"),
        (v2(0x21, 0x11, IP4 + b"\1"), "a PROXY header ends inside a TLV of type 0x01"),
        (v2(0x21, 0x11, IP4 + b"\1\0\2h"), "a PROXY header ends inside a TLV of type 0x01"),
        (v2(0x21, 0x11, IP4 + tlv(3, bytes(3))), "a checksum of 3 bytes"),
        (v2(0x21, 0x11, IP4 + tlv(3, bytes(4))), "the checksum of a PROXY header is wrong"),
        (v2(0x21, 0x11, IP4 + tlv(2, b"\xff")), "is not UTF-8"),
        (v2(0x21, 0x11, IP4 + tlv(5, bytes(129))), "a unique id of 129 bytes: at most 128"),
        (v2(0x21, 0x11, IP4 + tlv(0x20, bytes(4))), "for SSL has 4 bytes"),
        (v2(0x21, 0x11, IP4 + tlv(0x20, bytes(6))), "a PROXY TLV for SSL ends inside a TLV"),
        (v2(0x21, 0x11, IP4 + tlv(0x20, bytes(5) + tlv(0x22, b"\xff"))), "is not UTF-8"),
    ],
)
def test_other_bytes_are_not_a_header(data: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=re.escape(reason)):
        parse(data)


def test_two_checksums_are_refused() -> None:
    start = v2(0x21, 0x11, IP4 + tlv(3, bytes(4)) + tlv(3, bytes(4)))
    data = start[:31] + crc32c(start).to_bytes(4, "big") + start[35:]
    with pytest.raises(ProtocolError, match="two checksums"):
        parse(data)


def test_a_header_over_the_limit_is_refused_before_it_arrives() -> None:
    start = v2(0x21, 0x11, b"", length=5000)
    assert parse(start[:15]) is None
    with pytest.raises(TooLargeError, match="a PROXY header of 5016 bytes: the limit is 4096"):
        parse(start)
    assert parse(start, limit=5016) is None


@pytest.mark.parametrize(
    "line", [b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\n", v2(0x21, 0x11, IP4 + tlv(1, b"h2"))]
)
def test_an_incomplete_header_needs_more_bytes(line: bytes) -> None:
    assert [parse(line[:end]) for end in range(len(line))] == [None] * len(line)
    for kind in (bytes, bytearray, memoryview):
        found = parse(kind(line + b"rest"))
        assert found is not None
        assert found[1] == len(line)


def test_an_inconsistent_header_cannot_be_constructed() -> None:
    with pytest.raises(ValueError, match="a PROXY header for tcp4 has 2 addresses"):
        ProxyHeader("proxy", "tcp4", A)
    with pytest.raises(ValueError, match="a PROXY header for unspecified has 0 addresses"):
        ProxyHeader("proxy", "unspecified", A, B)
    with pytest.raises(ValueError, match="a local connection has neither addresses nor TLVs"):
        ProxyHeader("local", tlvs=((1, b"h2"),))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (ProxyHeader("proxy", "tcp4", A6, B), "2001:db8::1"),
        (ProxyHeader("proxy", "tcp4", ("a.example", 1), B), "a.example"),
        (ProxyHeader("proxy", "tcp4", (A[0], 65536), B), "65536 is not a port"),
        (ProxyHeader("proxy", "tcp4", "/path", B), "'/path' is not an address of family tcp4"),
        (ProxyHeader("proxy", "unix", A, "/path"), "is not a path of a Unix socket"),
        (ProxyHeader("proxy", "unix", "/a\0b", ""), "is not a path of a Unix socket"),
        (ProxyHeader("proxy", "unix", "/" * 109, ""), "is not a path of a Unix socket"),
        (ProxyHeader("proxy", tlvs=((3, bytes(4)),)), "a checksum cannot be passed as a TLV"),
        (ProxyHeader("proxy", tlvs=((1, bytes(65536)),)), "a PROXY TLV of 65536 bytes"),
        (ProxyHeader("proxy", tlvs=((1, bytes(65533)),)), "a PROXY header of 65536 bytes"),
    ],
)
def test_a_header_without_an_encoding_raises_when_encoded(header: ProxyHeader, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        header.encode_v2()


def test_version_1_cannot_encode_tlvs() -> None:
    with pytest.raises(ValueError, match="has no TLVs"):
        ProxyHeader("proxy", "tcp4", A, B, ((1, b"h2"),)).encode_v1()


@pytest.mark.parametrize(
    ("source", "destination", "header"),
    [
        (A, B, ProxyHeader("proxy", "tcp4", A, B)),
        (A6, B6, ProxyHeader("proxy", "tcp6", A6, B6)),
        (("fe80::1%eth0", 1), B6, ProxyHeader("proxy", "tcp6", ("fe80::1", 1), B6)),
        ("/a", "/b", ProxyHeader("proxy", "unix", "/a", "/b")),
        (A, "/b", ProxyHeader("proxy")),
        (None, B, ProxyHeader("proxy")),
    ],
)
def test_the_family_follows_from_the_addresses(
    source: Address | None, destination: Address | None, header: ProxyHeader
) -> None:
    assert ProxyHeader.between(source, destination) == header


def test_mixed_ipv4_and_ipv6_is_mapped_into_ipv6() -> None:
    header = ProxyHeader.between(A, B6, (1, b"h2"))
    assert (header.family, header.destination, header.tlvs) == ("tcp6", B6, ((1, b"h2"),))
    assert header.encode_v2()[16:32] == bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1])


# Properties

Command: TypeAlias = Literal["local", "proxy"]
ports = st.integers(0, 65535)
ip4 = st.tuples(st.ip_addresses(v=4).map(str), ports)
ip6 = st.tuples(st.ip_addresses(v=6).map(str), ports)
paths = st.binary(max_size=108).map(
    lambda path: path.replace(b"\0", b"/").decode("utf-8", "surrogateescape"),
)
families: dict[Family, st.SearchStrategy[Address]] = {
    "tcp4": ip4.map(lambda address: address),
    "udp4": ip4.map(lambda address: address),
    "tcp6": ip6.map(lambda address: address),
    "udp6": ip6.map(lambda address: address),
    "unix": paths.map(lambda path: path),
    "unix-datagram": paths.map(lambda path: path),
}
texts = st.none() | st.text(max_size=20)
known: st.SearchStrategy[Tlv] = st.one_of(
    st.tuples(st.just(1), st.binary(max_size=20)),
    st.tuples(st.just(2), st.text(max_size=20).map(str.encode)),
    st.tuples(st.just(5), st.binary(max_size=128)),
    st.tuples(st.just(0x30), st.text(max_size=20).map(str.encode)),
    st.tuples(st.integers(0xE0, 0xFF), st.binary(max_size=300)),
)


any_family: list[Family | None] = [*families, None]


@st.composite
def headers(draw: st.DrawFn) -> ProxyHeader:
    tlvs = tuple(draw(st.lists(known, max_size=4)))
    family = draw(st.sampled_from(any_family))
    if family is None:
        return ProxyHeader("proxy", tlvs=tlvs)
    return ProxyHeader("proxy", family, draw(families[family]), draw(families[family]), tlvs)


@given(headers(), st.booleans(), st.binary(max_size=5))
def test_a_version_2_header_round_trips(header: ProxyHeader, checksum: bool, rest: bytes) -> None:
    data = header.encode_v2(checksum=checksum)
    assert parse(data + rest) == (header, len(data))


in_version_1: list[Family] = ["tcp4", "tcp6"]


@given(st.sampled_from(in_version_1), st.data())
def test_a_version_1_header_round_trips(family: Family, data: st.DataObject) -> None:
    header = ProxyHeader("proxy", family, data.draw(families[family]), data.draw(families[family]))
    line = header.encode_v1()
    assert len(line) <= 107
    assert parse(line + b"rest") == (header, len(line))


@given(st.builds(ProxySSL, *[st.booleans()] * 4, *[texts] * 7, st.none() | st.binary(max_size=99)))
def test_tls_information_round_trips(ssl: ProxySSL) -> None:
    has_certificate = ssl.certificate_now or ssl.certificate_in_session
    read = ProxySSL.decode(ssl.encode())
    assert read.encode() == ssl.encode() or not has_certificate
    assert read.verified == (ssl.verified and has_certificate)


@given(headers(), st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_changed_byte_is_parsed_or_refused(header: ProxyHeader, changes: list[tuple[int, int]]) -> None:
    data = bytearray(header.encode_v2())
    for at, byte in changes:
        data[at % len(data)] = byte
    try_to_read(bytes(data))


@given(st.binary(max_size=150))
def test_random_bytes_raise_no_other_exception(data: bytes) -> None:
    for start in (
        b"",
        SIGNATURE,
        SIGNATURE + b"\x21",
        SIGNATURE + b"\x21\x11\0\x30" + IP4,
        b"PROXY ",
        b"PROXY TCP6 ",
    ):
        try_to_read(start + data)
        try_to_read(start + data + b"\r\n")


def try_to_read(data: bytes) -> None:
    try:
        found = parse(data)
    except LlamaError:
        return
    if found is not None:
        header, size = found
        assert size <= len(data)
        _ = header.alpn, header.authority, header.unique_id, header.netns, header.ssl
