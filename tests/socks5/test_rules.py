"""Patterns of targets, and the rules that are made of them."""

import pytest

from llama import ConfigError, RefusedError, Target, socks5
from llama.tcp._policy.address_filter import filter_addresses
from llama.tcp._policy.target_patterns import TargetPatterns


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("a.example", ["a.example:80", "A.Example.:443"], ["b.a.example:80", "xa.example:80"]),
        ("*.a.example", ["b.a.example:80", "c.b.a.example:80"], ["a.example:80", "ba.example:80"]),
        ("a.example:443", ["a.example:443"], ["a.example:80"]),
        ("*:25", ["a.example:25", "192.0.2.1:25", "[::1]:25"], ["a.example:80"]),
        ("*", ["a.example:25", "[::1]:80"], []),
        ("192.0.2.0/24", ["192.0.2.7:80", "[::ffff:192.0.2.7]:80"], ["192.0.3.1:80", "a.example:80"]),
        ("192.0.2.0/24:80", ["192.0.2.7:80"], ["192.0.2.7:81"]),
        ("::1", ["[::1]:80"], ["[::2]:80"]),
        ("[2001:db8::/32]:80", ["[2001:db8::1]:80"], ["[2001:db8::1]:81", "[2001:db9::1]:80"]),
    ],
)
def test_patterns(pattern: str, inside: list[str], outside: list[str]) -> None:
    found = TargetPatterns([pattern])
    assert [each for each in inside if Target.parse(each) not in found] == []
    assert [each for each in outside if Target.parse(each) in found] == []


@pytest.mark.parametrize("pattern", ["192.0.2.0/99", "::1:80:x", "a.example:99999", "a/b"])
def test_an_invalid_pattern_is_an_error_at_start(pattern: str) -> None:
    with pytest.raises(ConfigError):
        socks5.allow(pattern)


def test_allow_and_deny() -> None:
    only = socks5.allow("*.example:443", "192.0.2.0/24")
    assert only(None, Target("a.example", 443))
    assert only(None, Target("192.0.2.1", 80))
    assert not only(None, Target("a.example", 80))
    never = socks5.deny("*:25")
    assert never(None, Target("a.example", 80))
    assert not never(None, Target("a.example", 25))


def test_a_denied_network_includes_resolved_addresses() -> None:
    target = Target("a.example", 80)
    assert socks5.deny("192.0.2.0/24")(None, target)
    assert filter_addresses(target, ["192.0.2.1", "198.51.100.1"]) == ["198.51.100.1"]
    with pytest.raises(RefusedError, match=r"denied: 192\.0\.2\.0/24"):
        filter_addresses(target, ["192.0.2.1"])


def test_per_user() -> None:
    rule = socks5.per_user({"john": socks5.allow("*:443")}, default=socks5.allow("*:80"))
    john, jane = socks5.User("john"), socks5.User("jane")
    web, tls = Target("a.example", 80), Target("a.example", 443)
    assert [bool(rule(user, tls)) for user in (john, jane, None)] == [True, False, False]
    assert [bool(rule(user, web)) for user in (john, jane, None)] == [False, True, True]
    nobody = socks5.per_user({"john": socks5.allow("*")})
    assert not nobody(jane, web)
    assert not nobody(None, web)
