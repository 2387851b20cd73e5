import pytest

from llama import ConfigError, Target


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("a.example:80", "a.example", 80),
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("[::1]:443", "::1", 443),
        ("unix:/run/web", "unix:/run/web", 0),
    ],
)
def test_a_parsed_target_is_shown_as_it_was_written(text: str, host: str, port: int) -> None:
    target = Target.parse(text)
    assert (target.host, target.port, str(target)) == (host, port, text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("::1:443", "write an IPv6 address in brackets"),
        (":80", "has an empty host"),
        ("a.example", "expected HOST:PORT"),
        ("a.example:65536", "a port from 0 to 65535"),
        ("unix:", "has an empty path"),
        ("john@a.example:80", "the address ending in 'a.example:80' has a user"),
        ("john:secret@@ss", "'ss' has a user"),
    ],
)
def test_an_invalid_target_names_the_expected_form(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Target.parse(text)


def test_the_error_message_does_not_show_a_password() -> None:
    with pytest.raises(ConfigError) as raised:
        Target.parse("john:secret@a.example:80")
    assert "secret" not in str(raised.value)
