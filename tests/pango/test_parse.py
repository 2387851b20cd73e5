"""Settings as people write them."""

import pytest

from llama import ConfigError
from pango import _parse


@pytest.mark.parametrize(
    ("text", "value"),
    [("10", 10), ("10s", 10), ("0.5", 0.5), ("500ms", 0.5), ("5m", 300), ("1 h", 3600), ("2d", 172800)],
)
def test_a_length_of_time_has_units(text: str, value: float) -> None:
    assert _parse.seconds(text) == value


def test_off_is_no_limit() -> None:
    assert _parse.seconds("off") is None
    assert _parse.seconds("OFF") is None


@pytest.mark.parametrize("text", ["", "0", "-1", "5x", "1e3", "inf", "nan", "9" * 400, "٣", "10,5"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected one above 0 such as 10, 500ms, 5m or off"):
        _parse.seconds(text)


@pytest.mark.parametrize("value", [0.25, 1.5, 10, 60, 90, 600, 3600, 5400, 86400, None])
def test_a_length_of_time_is_spelled_as_it_is_read(value: float | None) -> None:
    assert _parse.seconds(_parse.spell_seconds(value)) == value


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "", "²", "10000000000"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a whole number from 1 up"):
        _parse.count(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":8443", ":8443"),
        ("8443", "localhost:8443"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("[::1]:443", "[::1]:443"),
        ("www.example.org:443", "www.example.org:443"),
        ("unix:/run/pango.sock", "unix:/run/pango.sock"),
        ("fd:3", "fd:3"),
    ],
)
def test_an_address_to_listen_on(text: str, address: str) -> None:
    assert _parse.listen(text) == address


@pytest.mark.parametrize(
    "text", ["", ":", "localhost", "::1:443", ":65536", "a:b", "unix:", "unix:" + "x" * 108, "fd:", "fd:x"]
)
def test_what_is_no_address_to_listen_on_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        _parse.listen(text)


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:80",
        "[::1]:80",
        "app:8000",
        "tls://app.example.org:443",
        "unix:/run/app.sock",
        "h2c://app:80",
    ],
)
def test_a_target(text: str) -> None:
    assert _parse.target(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "app",
        ":80",
        "app:0",
        "app:65536",
        "http://app:0",
        "http://user@app",
        "ftp://app:80",
        "tls://app",
        "tls://unix:/x",
        "tls://",
        "unix:",
    ],
)
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        _parse.target(text)


def test_networks_are_listed_with_commas() -> None:
    assert _parse.networks("10.0.0.0/8, 127.0.0.1,2001:db8::/32") == (
        "10.0.0.0/8",
        "127.0.0.1/32",
        "2001:db8::/32",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.0.0.1/8", "'10.0.0.1/8' is an address within 10.0.0.0/8"),
        ("everywhere", "'everywhere' is no network"),
        (" , ", "holds no network"),
    ],
)
def test_what_is_no_network_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _parse.networks(text)


def test_protocols_are_listed_with_commas() -> None:
    assert _parse.protocols("h2, http/1.1") == ("h2", "http/1.1")
    with pytest.raises(ConfigError, match="expected such as h2"):
        _parse.protocols("h2,")
