"""Keys of the first packets."""

import pytest

pytest.importorskip("qh3")

from llama.http._h3.server.accept import initial_keys

ID = bytes.fromhex("8394c8f03e515708")


@pytest.mark.parametrize(
    ("side", "keys"),
    [
        (
            b"client in",
            (
                "1f369613dd76d5467730efcbe3b1a22d",
                "fa044b2f42a3fd3b46fb255c",
                "9f50449e04a0e810283a1e9933adedd2",
            ),
        ),
        (
            b"server in",
            (
                "cf3a5331653c364c88f0f379b6067e37",
                "0ac1493ca1905853b0bba03e",
                "c206b8d9b9f0f37644430b490eeaa314",
            ),
        ),
    ],
)
def test_initial_keys_are_those_of_the_standard(side: bytes, keys: tuple[str, ...]) -> None:
    """RFC 9001 appendix A.1."""
    assert tuple(map(bytes.hex, initial_keys(ID, side))) == keys
