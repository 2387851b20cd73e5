"""The command line itself: what is said of it, and what it does not take."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest

from llama._cli import main
from tests.cli.conftest import Call

COMMANDS = ["echo", "forward", "http-proxy", "reverse", "socks5", "static"]
SHARED = [
    "--listen",
    "--cert",
    "--key",
    "--workers",
    "--grace",
    "--access-log",
    "--idle-timeout",
    "--handshake-timeout",
]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_has_an_example_that_can_be_read(llama: Call, name: str) -> None:
    found = re.search(rf"^  llama {name} (.*)$", llama(f"{name} --help").output, re.MULTILINE)
    assert found is not None
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.make_context(name, found[1].split()).params["listen"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_shared_options(llama: Call, name: str) -> None:
    help = llama(f"{name} --help").output
    assert [option for option in SHARED if f"  {option} " not in help] == []
    assert ("  --via " in help) == (name not in ("echo", "static"))


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("static", "'DIR'"),
        ("echo --idle-timeout never", "'--idle-timeout'"),
        ("reverse --to http://a --response-header-timeout -1", "'--response-header-timeout'"),
        ("static . --first-byte-timeout 0", "'--first-byte-timeout'"),
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


def test_a_user_that_cannot_be_read_is_not_shown(
    llama: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "secret" not in llama("socks5 --user :secret").errors
    file = tmp_path / "users"
    file.write_text("# ours\n\njohn:secret\n:secret\n")
    done = llama(f"http-proxy --user-file {file}")
    assert done.code == 78
    assert (
        done.errors == f"llama: --user-file: {file}, line 4: expected NAME:PASSWORD, neither of them empty\n"
    )
    monkeypatch.setenv("LLAMA_USER", "john:fine\n:secret")
    done = llama("socks5")
    assert (done.code, "secret" in done.errors, "'--user'" in done.errors) == (2, False, True)


@pytest.mark.parametrize(("text", "problem"), [("# nobody\n", "names no users"), ("\xff", "it is not UTF-8")])
def test_a_file_of_users_that_helps_nobody(llama: Call, tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "users").write_bytes(text.encode("latin-1"))
    assert problem in llama(f"socks5 --user-file {tmp_path / 'users'}").errors
    assert "--user-file: cannot read" in llama(f"socks5 --user-file {tmp_path / 'none'}").errors


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("echo --key k.pem", "--key: "),
        ("static missing", "DIR: "),
        ("static . --index a/b", "--index: "),
        ("echo --cert missing.pem", "--cert: "),
        ("echo --cert a.pem --cert b.pem --key k.pem", "--key: 1 for 2 --cert"),
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
    assert "--user " in done.errors
    assert "--user-file" in done.errors
    assert "--allow-anonymous" in done.errors


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


@pytest.mark.parametrize(("shell", "last"), [("bash", 2), ("zsh", 2), ("fish", "--acc")])
def test_a_shell_is_told_how_a_line_may_go_on(shell: str, last: object) -> None:
    environment = {
        "COMP_WORDS": "llama static --acc" if shell != "fish" else "llama static",
        "COMP_CWORD": str(last),
        "_LLAMA_COMPLETE": f"{shell}_complete",
    }
    done = subprocess.run(
        [sys.executable, "-c", "from llama._cli import main; main(prog_name='llama')"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "--access-log" in done.stdout
