"""The command line itself: what is said of it, and what it does not take."""

import re
import socket

import click
import pytest

from llama._cli import main
from tests.cli.conftest import Call

COMMANDS = ["echo", "forward", "http-proxy", "reverse", "socks5"]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_has_an_example_that_can_be_read(llama: Call, name: str) -> None:
    found = re.search(rf"^  llama {name} (.*)$", llama(f"{name} --help").output, re.MULTILINE)
    assert found is not None
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.make_context(name, found[1].split()).params["listen"]


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("socks5 --listen nowhere", "'--listen'"),
        ("socks5 --user john", "'--user'"),
        ("http-proxy --grace soon", "'--grace'"),
        ("http-proxy --access-log loud", "'--access-log'"),
        ("reverse", "'--to'"),
        ("forward --to a.example:0", "'--to'"),
        ("forward --to a.example:80 --workers 0", "'--workers'"),
        ("echo --to a.example:80", "--to"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error_that_names_the_option(
    llama: Call, line: str, option: str
) -> None:
    done = llama(line)
    assert done.code == 2
    assert option in done.errors


def test_a_user_that_cannot_be_read_is_not_shown(llama: Call) -> None:
    assert "secret" not in llama("socks5 --user :secret").errors


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("echo --key k.pem", "--key: "),
        ("echo --cert missing.pem", "--cert: "),
        ("reverse --to ftp://a.example", "--to: "),
        ("http-proxy --via gopher://a.example", "--via: "),
        (f"socks5 --user {'j' * 256}:secret", "--user: "),
    ],
)
def test_wrong_settings_name_the_option(llama: Call, line: str, option: str) -> None:
    done = llama(line)
    assert done.code == 78
    assert done.errors.startswith(f"llama: {option}")


@pytest.mark.parametrize("command", ["socks5", "http-proxy"])
@pytest.mark.parametrize("address", [":0", "0.0.0.0:0", "[::]:0", "a.example:0", "fd:3"])
def test_an_open_proxy_for_others_has_to_be_asked_for(llama: Call, command: str, address: str) -> None:
    done = llama(f"{command} --listen {address}")
    assert done.code == 78
    assert done.errors.startswith(f"llama: --listen: {address} ")
    assert "--user" in done.errors
    assert "--open" in done.errors


def test_an_address_in_use_is_a_failure(llama: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = llama(f"echo --listen 127.0.0.1:{taken.getsockname()[1]}")
    assert done.code == 1
    assert "llama: --listen: cannot listen" in done.errors


def test_the_version(llama: Call) -> None:
    assert llama("--version").output.startswith("llama, version ")


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_completion_prints_a_script(llama: Call, shell: str) -> None:
    done = llama(f"completion {shell}")
    assert done.code == 0
    assert "_LLAMA_COMPLETE" in done.output
