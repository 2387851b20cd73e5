"""`llama mitm -- COMMAND`: the command is told of its proxy, and what it sent is told."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.mitm.site import CLEAN, Site, run, site
from tests.pango.conftest import needs
from tests.pango.process import ROOT

pytestmark = pytest.mark.peer
ENVIRONMENT = {**CLEAN, "PYTHONPATH": str(ROOT / "src")}
LLAMA = (sys.executable, "-m", "llama", "mitm", "--ca", "ca", "--upstream-ca", "ca.pem")


@pytest.fixture
def cloud(files: Path) -> Iterator[Site]:
    with site() as found:
        yield found


def beside(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return run(*LLAMA, *arguments, variables={**ENVIRONMENT, **variables})


GET = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode(), end='')"


@needs("curl")
@pytest.mark.parametrize("mode", ["http", "socks5"])
def test_curl_is_told_of_its_proxy_and_whom_to_trust(cloud: Site, mode: str) -> None:
    done = beside(
        "--mode", mode, "--har", "out.har", "curl", "-qsS", f"{cloud.url}/a", NO_PROXY="*", no_proxy="*"
    )
    assert (done.returncode, done.stdout) == (0, "page /a from the cloud\n"), done.stderr
    first, last = done.stderr.splitlines()
    assert first.startswith("llama: GET 200 23 B ") and first.endswith(f" ms {cloud.url}/a")
    assert last == "llama: 1 in all, 0 failed, 23 B"
    (entry,) = json.loads(Path("out.har").read_text())["log"]["entries"]
    assert entry["request"]["url"] == f"{cloud.url}/a"


def test_python_is_told_too(cloud: Site) -> None:
    done = beside("--", sys.executable, "-c", GET, f"{cloud.url}/a")
    assert (done.returncode, done.stdout) == (0, "page /a from the cloud\n"), done.stderr
    assert f" {cloud.url}/a" in done.stderr


def test_what_is_passed_through_is_trusted_as_well(cloud: Site) -> None:
    done = beside("--passthrough", "localhost", "--", sys.executable, "-c", GET, f"{cloud.url}/a")
    assert (done.returncode, done.stdout) == (0, "page /a from the cloud\n"), done.stderr
    assert "llama: PASS - " in done.stderr and f" localhost:{cloud.port}\n" in done.stderr


@needs("node")
def test_node_trusts_too(cloud: Site) -> None:
    script = "fetch(process.argv[1]).then(r => r.text()).then(t => process.stdout.write(t))"
    direct = """
const http = require('http'), https = require('https'), url = new URL(process.argv[1]);
const proxy = new URL(process.env.HTTPS_PROXY);
http.request({host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: url.host})
  .on('connect', (_, socket) => https.get(url, {socket, agent: false}, r => r.pipe(process.stdout))).end();
"""
    done = beside("--", "node", "-e", direct, f"{cloud.url}/a")
    assert (done.returncode, done.stdout) == (0, "page /a from the cloud\n"), done.stderr
    assert beside("--", "node", "-e", script, f"{cloud.url}/a").stdout == "page /a from the cloud\n"


def test_the_exit_code_is_the_command_s(files: Path) -> None:
    for script, code in (("exit 7", 7), ("kill -9 $$", 128 + 9), ("exit 0", 0)):
        assert beside("--", "sh", "-c", script).returncode == code
    done = beside("--", "nowhere-to-be-found")
    assert (done.returncode, done.stderr) == (
        127,
        "llama: cannot run nowhere-to-be-found: No such file or directory\n",
    )
    assert beside("--", str(files)).returncode == 126


def test_the_files_of_the_command_are_gone_after_it(files: Path) -> None:
    done = beside("--", "sh", "-c", "cat $SSL_CERT_FILE; ls $SSL_CERT_FILE $NODE_EXTRA_CA_CERTS; env")
    assert Path("ca/ca.pem").read_text() in done.stdout
    told = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert told["HTTPS_PROXY"] == told["http_proxy"] and told["HTTPS_PROXY"].startswith("http://127.0.0.1:")
    assert told["NO_PROXY"] == told["no_proxy"] == ""
    assert not os.path.exists(told["SSL_CERT_FILE"])


def test_the_command_has_the_input(files: Path) -> None:
    done = subprocess.run(
        [*LLAMA, "--summary", "0", "cat"],
        input=b"hello",
        capture_output=True,
        env=ENVIRONMENT,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"hello", b"")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_signals_are_passed_on(cloud: Site, name: str) -> None:
    script = f"""
import signal, urllib.request
signal.signal(signal.{name}, lambda *_: exit(3))
urllib.request.urlopen({cloud.url + "/a"!r}).read()
print("ready", flush=True)
while True:
    signal.pause()
"""
    with subprocess.Popen(
        [*LLAMA, "--har", "out.har", "--", sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            process.send_signal(getattr(signal, name))
            assert process.wait(60) == 3
        finally:
            process.kill()
    assert len(json.loads(Path("out.har").read_text())["log"]["entries"]) == 1


@pytest.mark.parametrize("home", ["home", os.devnull])
def test_an_authority_needs_no_place_of_its_own(cloud: Site, home: str) -> None:
    line = (sys.executable, "-m", "llama", "mitm", "--upstream-ca", "ca.pem", "--", sys.executable, "-c", GET)
    data = str(Path(home).absolute() / "data")
    done = run(*line, f"{cloud.url}/a", variables={**ENVIRONMENT, "HOME": home, "XDG_DATA_HOME": data})
    assert (done.returncode, done.stdout) == (0, "page /a from the cloud\n"), done.stderr
    assert Path(home, "data/llama/ca/ca.pem").is_file() == (home != os.devnull)


def test_a_signal_that_is_ignored_stays_ignored(files: Path) -> None:
    script = """
import os, signal
os.kill(os.getppid(), signal.SIGHUP)
os.kill(os.getpid(), signal.SIGHUP)
os.kill(os.getppid(), signal.SIGUSR1)
signal.pause()
"""
    line = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh", *LLAMA, "--", sys.executable, "-c", script)
    assert run(*line, variables=ENVIRONMENT).returncode == 128 + signal.SIGUSR1


def test_a_failure_is_told_once(files: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
    done = beside("--", sys.executable, "-c", GET, url)
    assert done.returncode == 1
    assert done.stderr.count("Connection refused") == 1


@needs("curl")
@pytest.mark.parametrize("mode", ["http", "socks5"])
def test_a_command_is_told_of_a_user(cloud: Site, mode: str) -> None:
    done = beside("--mode", mode, "curl", "-qsS", f"{cloud.url}/a", LLAMA_USER="john:s:cret@/")
    assert (done.returncode, done.stdout) == (0, "page /a from the cloud\n"), done.stderr


@needs("curl")
def test_lines_beside_a_command_are_on_standard_error(cloud: Site) -> None:
    done = beside("--access-log=common", "--summary", "0", "curl", "-qsS", f"{cloud.url}/a")
    assert done.stdout == "page /a from the cloud\n"
    assert re.search(rf'"GET {cloud.url}/a HTTP/\S+" 200 23\n$', done.stderr)


def test_what_a_command_leaves_behind_does_not_hold_its_end_up(cloud: Site) -> None:
    script = f"""
import os, socket, sys, time
host, port = os.environ["HTTPS_PROXY"].removeprefix("http://").split(":")
tunnel = socket.create_connection((host, int(port)))
tunnel.sendall(b"CONNECT localhost:{cloud.port} HTTP/1.1\\r\\nHost: localhost:{cloud.port}\\r\\n\\r\\n")
assert b" 200 " in tunnel.recv(1000)
if os.fork():
    print("left", flush=True)
    os._exit(4)
null = os.open(os.devnull, os.O_RDWR)
os.dup2(null, 1), os.dup2(null, 2)
tunnel.recv(1)
"""
    done = beside("--grace", "300ms", "--", sys.executable, "-c", script)
    assert (done.returncode, done.stdout) == (4, "left\n"), done.stderr


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("--mode forward --to a.example:443 -- true", "--mode forward: "),
        ("--listen unix:there -- true", "--listen: "),
    ],
)
def test_what_a_command_cannot_be_told(files: Path, line: str, problem: str) -> None:
    done = beside(*line.split())
    assert done.returncode == 78
    assert done.stderr.startswith(f"llama: {problem}")
