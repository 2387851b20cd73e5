"""JA3 and JA4 against the published examples of both."""

import pytest

from llama.tls._client_hello.client_hello import ClientHello
from llama.tls._client_hello.fingerprint import GREASE, ja4_hash
from tests.tls.client_hello import hellos
from tests.tls.client_hello.hellos import client_hello

CHROME_CIPHERS = bytes.fromhex("130113021303c02bc02fc02cc030cca9cca8c013c014009c009d002f0035")
CHROME_EXTENSIONS = bytes.fromhex("001b00000033001044690017002d000d000500230012002bff01000b000a0015")
CHROME_ALGORITHMS = (0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601)


def pairs(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]


def chrome(*, grease: bool = False, sni: bool = True, protocol: bytes | None = b"h2") -> ClientHello:
    """The browser that the JA4 specification takes as its example."""
    known = dict(
        [
            hellos.sni(b"a.example"),
            hellos.groups(*([0x1A1A] if grease else []), 29, 23, 24),
            hellos.point_formats(0),
            hellos.algorithms(*([0x2A2A] if grease else []), *CHROME_ALGORITHMS),
            hellos.alpn(protocol or b"", b"http/1.1"),
            hellos.versions(*([0xFAFA] if grease else []), 0x0304, 0x0303),
            hellos.key_share(29),
        ]
    )
    sent = [(kind, known.get(kind, b"")) for kind in pairs(CHROME_EXTENSIONS)]
    sent = [pair for pair in sent if (sni or pair[0] != 0) and (protocol or pair[0] != 16)]
    if grease:
        sent = [(0x3A3A, b""), *sent, (0x4A4A, b"\0")]
    return ClientHello(client_hello(*sent, ciphers=[*([0x5A5A] if grease else []), *pairs(CHROME_CIPHERS)]))


@pytest.mark.parametrize("grease", [False, True])
def test_the_example_of_the_ja4_specification(grease: bool) -> None:
    assert chrome(grease=grease).ja4 == "t13d1516h2_8daaf6152771_e5627efa2ab1"


def test_the_raw_ja4_is_sorted_except_for_the_signature_algorithms() -> None:
    assert chrome().ja4_text == (
        "t13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_"
        "0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01_"
        "0403,0804,0401,0503,0805,0501,0806,0601"
    )


def test_sni_and_alpn_appear_in_the_first_part_only() -> None:
    assert chrome(sni=False).ja4 == "t13i1515h2_8daaf6152771_e5627efa2ab1"
    assert chrome(protocol=None).ja4 == "t13d151500_8daaf6152771_e5627efa2ab1"


def test_without_signature_algorithms_the_extensions_are_hashed_alone() -> None:
    kinds = [(5, b""), hellos.groups(29), hellos.point_formats(0), (0x12, b"")]
    assert ClientHello(client_hello(*kinds)).ja4_text.endswith("_0005,000a,000b,0012")
    extensions = "0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01"
    assert ja4_hash("head", "", extensions) == "head_000000000000_6d807ffa2a79"


def test_an_empty_list_is_zeros() -> None:
    assert ClientHello(client_hello(ciphers=[0x0A0A])).ja4 == "t12i000000_000000000000_000000000000"
    assert (
        ClientHello(client_hello(hellos.sni(b"a"), ciphers=[0x0A0A])).ja4
        == "t12d000100_000000000000_000000000000"
    )


@pytest.mark.parametrize(
    ("protocol", "shown"),
    [
        ("6832", "h2"),
        ("687474702f312e31", "h1"),
        ("61", "aa"),
        ("ab", "ab"),
        ("20", "20"),
        ("abcd", "ad"),
        ("2061", "21"),
        ("30ab", "3b"),
        ("6120", "60"),
        ("3031abcd", "3d"),
        ("30abcd31", "01"),
    ],
)
def test_the_protocol_is_shown_by_its_first_and_last_character(protocol: str, shown: str) -> None:
    assert ClientHello(client_hello(hellos.alpn(bytes.fromhex(protocol)))).ja4[8:10] == shown


@pytest.mark.parametrize(
    ("version", "shown"),
    [
        (0x0304, "13"),
        (0x0303, "12"),
        (0x0302, "11"),
        (0x0301, "10"),
        (0x0300, "s3"),
        (0x0002, "s2"),
        (0x7F1C, "00"),
    ],
)
def test_the_version_is_the_highest_offered(version: int, shown: str) -> None:
    assert ClientHello(client_hello(version=version)).ja4[1:3] == shown
    assert ClientHello(client_hello(hellos.versions(0x0001, 0xEAEA, version))).ja4[1:3] == shown


def test_counts_are_capped_at_99() -> None:
    many = client_hello(*((1000 + n, b"") for n in range(120)), ciphers=range(1, 150))
    assert ClientHello(many).ja4[:10] == "t12i999900"


def test_the_transport_is_the_first_letter() -> None:
    assert ClientHello(client_hello(), transport="q").ja4[0] == "q"


# The examples that JA3's authors published.


def test_ja3_with_extensions() -> None:
    hello = ClientHello(
        client_hello(
            hellos.sni(b"a.example"),
            hellos.groups(23, 24, 25),
            hellos.point_formats(0),
            version=769,
            ciphers=[47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4],
        )
    )
    assert hello.ja3_text == "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0"
    assert hello.ja3 == "ada70206e40642a3e4461f35503241d5"


def test_ja3_without_extensions() -> None:
    hello = ClientHello(client_hello(version=769, ciphers=[4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99]))
    assert hello.ja3_text == "769,4-5-10-9-100-98-3-6-19-18-99,,,"
    assert hello.ja3 == "de350869b8c85de67a350c8d186f11e6"


def test_ja3_leaves_grease_out() -> None:
    assert chrome(grease=True).ja3 == chrome().ja3


def test_grease_is_the_sixteen_values_of_the_rfc() -> None:
    assert sorted(GREASE) == [int(f"{digit}a{digit}a", 16) for digit in "0123456789abcdef"]
