"""Rules: what becomes of a connection, by what is known of it."""

import pytest

from llama import ConfigError, Extensions, PeerAddress, Target, mitm
from llama.mitm import Action, ConnectionInfo, Process, Rule
from llama.mitm._rules import Rules


def asked(
    target: str = "a.example:443", name: str | None = None, client: str = "192.0.2.1", process: str = ""
) -> ConnectionInfo:
    extensions = Extensions(PeerAddress(client, 1))
    if process:
        extensions.set(Process(1, process, f"/usr/bin/{process}"))
    return ConnectionInfo(Target.parse(target), name, extensions)


@pytest.mark.parametrize(
    ("rule", "matching", "other"),
    [
        (mitm.block("a.example"), asked(), asked("b.example:443")),
        (mitm.block("*.example"), asked(), asked("example:443")),
        (mitm.block("a.example:443"), asked(), asked("a.example:80")),
        (mitm.block("*:25"), asked("a.example:25"), asked()),
        (mitm.block("192.0.2.0/24"), asked("192.0.2.7:443"), asked("198.51.100.1:443")),
        (mitm.block("a.example"), asked("192.0.2.7:443", "a.example"), asked("192.0.2.7:443", "b.example")),
        (mitm.block(sni=["A.example"]), asked("192.0.2.7:443", "a.example"), asked()),
        (mitm.block(clients=["192.0.2.0/24"]), asked(), asked(client="198.51.100.1")),
        (mitm.block(processes=["curl"]), asked(process="curl"), asked(process="wget")),
        (mitm.block(processes=["*/bin/curl"]), asked(process="curl"), asked()),
        (
            mitm.block("a.example", clients=["192.0.2.1"], processes=["curl"]),
            asked(process="curl"),
            asked(process="curl", client="192.0.2.2"),
        ),
    ],
)
def test_a_rule_matches_what_all_its_patterns_match(
    rule: Rule, matching: ConnectionInfo, other: ConnectionInfo
) -> None:
    assert rule(matching) == "block"
    assert rule(other) is None


def test_the_first_rule_that_decides_wins() -> None:
    def ask(given: ConnectionInfo) -> Action | None:
        return "block" if given.host == "c.example" else None

    rules = Rules((mitm.intercept("a.example"), mitm.passthrough("*.example:443"), ask), "intercept")
    assert rules.decide(asked()) == "intercept"
    assert rules.decide(asked("b.example:443")) == "passthrough"
    assert rules.decide(asked("c.example:80")) == "block"
    assert rules.decide(asked("d.example:80")) == "intercept"


def test_rules_that_need_the_first_bytes_do_not_decide_early() -> None:
    passing = mitm.passthrough("a.example")
    early = Rules((passing,), "intercept").decide_early
    assert early(asked()) == "passthrough"
    assert early(asked("192.0.2.7:443")) is None
    assert early(asked("b.example:443")) is None
    by_name = Rules((mitm.block(sni=["b.example"]), passing), "intercept").decide_early
    assert by_name(asked()) is None
    assert Rules((lambda each: None, passing), "intercept").decide_early(asked()) is None
    by_client = Rules((mitm.block(clients=["192.0.2.9"]), passing), "intercept").decide_early
    assert by_client(asked()) == "passthrough"
    assert by_client(asked(client="192.0.2.9")) == "block"
    assert Rules((), "passthrough").decide_early(asked()) == "passthrough"
    assert Rules((), "intercept").decide_early(asked()) is None


def test_a_rule_that_returns_a_wrong_value_is_named() -> None:
    def nonsense(given: ConnectionInfo) -> Action | None:
        return "maybe"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    with pytest.raises(ConfigError, match="nonsense"):
        Rules((nonsense,), "intercept").decide(asked())


def test_invalid_patterns_are_rejected() -> None:
    with pytest.raises(ConfigError):
        mitm.block("192.0.2.0/99")
    with pytest.raises(ConfigError):
        mitm.block(clients=["nobody"])
    with pytest.raises(ConfigError, match="expected a list"):
        mitm.block(sni="a.example")


def test_the_repr_of_a_rule() -> None:
    assert repr(mitm.passthrough("a.example", "*:25")) == "mitm.passthrough(a.example, *:25)"
