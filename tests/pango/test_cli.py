"""The command line itself."""

import pytest

from tests.pango.conftest import Call


def test_an_unknown_option_is_a_usage_error(pango: Call) -> None:
    done = pango("serve --chekc")
    assert done.code == 2
    assert "'--chekc'" in done.errors
    assert "--check" in done.errors


def test_a_missing_value_is_a_usage_error(pango: Call) -> None:
    done = pango("serve --to")
    assert done.code == 2
    assert "--to" in done.errors


def test_the_help_documents_the_timeouts(pango: Call) -> None:
    words = " ".join(pango("serve --help").output.split())
    head = "Timeout for a client's TLS handshake, its PROXY header, and the head of each HTTP request. [default: 10s]"
    assert head in words
    assert "Timeout for connecting to a target. [default: 10s]" in words
    assert "Close a connection after this time without traffic in either direction." in words
    assert "first byte of a new connection within 60s, and make progress with each body within 60s." in words
    assert "[default: 10m]" in words


def test_the_version(pango: Call) -> None:
    assert pango("--version").output.startswith("pango, version ")


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_completion_prints_a_script(pango: Call, shell: str) -> None:
    done = pango(f"completion {shell}")
    assert done.code == 0
    assert "_PANGO_COMPLETE" in done.output
