"""`llama mitm` in a process of its own, with curl before it and a site behind it."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama import mitm
from tests.cli.conftest import Start
from tests.cli.mitm.site import CLEAN, Site, curl, run, site
from tests.pango.conftest import needs

pytestmark = [pytest.mark.peer, needs("curl")]
TRUST = ("--cacert", "ca/ca.pem")
OURS = ("--ca", "ca", "--upstream-ca", "ca.pem")


@pytest.fixture
def cloud(files: Path) -> Iterator[Site]:
    with site() as found:
        yield found


def test_an_http_front_door(start: Start, cloud: Site) -> None:
    server = start("mitm", *OURS)
    server.expect(r"clients have to trust \S+/ca/ca.pem, which http://llama.internal/ serves")
    way = ("-x", f"http://{server.address}")
    for version in ("--http1.1", "--http2"):
        assert curl(*way, *TRUST, version, f"{cloud.url}/a") == "page /a from the cloud\n"
        server.expect(rf"^\d\d:\d\d:\d\d GET {cloud.url}/a 200 23 B \d+ ms$")
    assert curl(*way, "http://llama.internal/ca.pem") == Path("ca/ca.pem").read_text()
    server.stop()


def test_a_socks5_front_door(start: Start, cloud: Site) -> None:
    server = start("mitm", "--mode", "socks5", *OURS)
    way = ("-x", f"socks5h://{server.address}")
    assert curl(*way, *TRUST, f"{cloud.url}/a") == "page /a from the cloud\n"
    server.expect(rf" GET {cloud.url}/a 200 ")
    assert curl(*way, "http://llama.internal/ca.pem") == Path("ca/ca.pem").read_text()
    server.stop()


def test_one_target(start: Start, cloud: Site) -> None:
    server = start("mitm", "--mode", "forward", "--to", f"localhost:{cloud.port}", *OURS)
    assert curl(*TRUST, f"https://localhost:{server.port}/a") == "page /a from the cloud\n"
    server.expect(r" GET https://localhost:\d+/a 200 ")
    server.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_recording_is_whole_after_a_signal(start: Start, cloud: Site, number: signal.Signals) -> None:
    server = start("mitm", "--har", "out.har", *OURS)
    assert json.loads(Path("out.har").read_text())["log"]["entries"] == []
    curl("-x", f"http://{server.address}", *TRUST, f"{cloud.url}/a")
    server.stop(number)
    (entry,) = json.loads(Path("out.har").read_text())["log"]["entries"]
    assert entry["request"]["url"] == f"{cloud.url}/a"
    assert entry["response"]["content"]["text"] == "page /a from the cloud\n"


def test_a_recording_has_what_a_signal_broke_off(start: Start, cloud: Site) -> None:
    server = start("mitm", "--har", "out.har", "--grace", "100ms", *OURS)
    command = (
        "curl",
        "-qsSN",
        "--noproxy",
        "",
        "-x",
        f"http://{server.address}",
        *TRUST,
        f"{cloud.url}/half",
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=CLEAN) as client:
        assert client.stdout is not None and client.stdout.read(11) == b"half a page"
        log = server.stop()
        assert client.wait(20) != 0
    (entry,) = mitm.read_har(Path("out.har"))
    assert (entry.url, entry.response_body.read()) == (f"{cloud.url}/half", b"half a page")
    assert any(re.search(r"GET \S+/half 200 11 B \d+ ms \(broken off\)$", line) for line in log)


def test_a_recording_and_a_console_outlive_a_reload(start: Start, cloud: Site) -> None:
    server = start("mitm", "--har", "out.har", *OURS)
    for path in ("a", "b"):
        curl("-x", f"http://{server.address}", *TRUST, f"{cloud.url}/{path}")
        server.send(signal.SIGHUP)
        server.expect("reloaded, listening on ")
    server.stop()
    assert [each.url for each in mitm.read_har(Path("out.har"))] == [f"{cloud.url}/a", f"{cloud.url}/b"]


@pytest.mark.parametrize(
    ("format", "line", "passed"),
    [
        ("common", r'"GET {url}/a HTTP/\S+" 200 23$', r'"PASS localhost:\d+" - \d+$'),
        (
            "combined",
            r'"GET {url}/a HTTP/\S+" 200 23 "-" "curl/\S+"$',
            r'"PASS localhost:\d+" - \d+ "\d+ bytes up" ',
        ),
        (
            "json",
            r'"url.path": "/a".* "server.address": "localhost:\d+"',
            r'"network.protocol.name": "pass"',
        ),
    ],
)
def test_an_access_log(start: Start, cloud: Site, format: str, line: str, passed: str) -> None:
    server = start("mitm", "--passthrough", "127.0.0.1", "--access-log", format, *OURS)
    way = ("-x", f"http://{server.address}")
    curl(*way, *TRUST, f"{cloud.url}/a")
    server.expect(line.replace("{url}", cloud.url))
    curl(*way, "--cacert", "ca.pem", f"https://127.0.0.1:{cloud.port}/a")
    server.expect(passed.replace("localhost", "127.0.0.1"))
    server.stop()


def test_nothing_is_said_where_that_is_wanted(start: Start, cloud: Site) -> None:
    server = start("mitm", "--access-log", "off", *OURS)
    curl("-x", f"http://{server.address}", *TRUST, f"{cloud.url}/a")
    assert [line for line in server.stop() if "GET" in line] == []


def test_users_and_tls_in_front(start: Start, cloud: Site) -> None:
    server = start("mitm", "--user", "john:secret", "--cert", "c.pem", "--key", "k.pem", *OURS)
    way = ("-x", f"https://localhost:{server.port}", "--proxy-cacert", "ca.pem", *TRUST, f"{cloud.url}/a")
    assert curl("-U", "john:secret", *way) == "page /a from the cloud\n"
    done = run("curl", "-qsS", "--noproxy", "", "-U", "john:wrong", *way)
    assert "407" in done.stderr
    server.stop()


def test_a_transparent_door_takes_only_what_was_led_there(start: Start, files: Path) -> None:
    server = start("mitm", "--mode", "transparent", "--ca", "ca")
    assert run("curl", "-qsS", "--noproxy", "", f"http://{server.address}/").returncode != 0
    server.expect("was not redirected here")
    server.stop()


HOOK = """
from llama import layer

@layer
async def rewrite(request, inner):
    response = await inner(request)
    response.body = response.body.replace(b"cloud", b"{word}")
    return response

layers = [rewrite]
"""


def test_hooks_are_loaded_again_when_they_change(start: Start, cloud: Site) -> None:
    Path("hooks.py").write_text(HOOK.format(word="llama"))
    server = start("mitm", "--script", "hooks.py", *OURS)
    way = ("-x", f"http://{server.address}", *TRUST, f"{cloud.url}/a")
    assert curl(*way) == "page /a from the llama\n"
    Path("hooks.py").write_text("layers = [nonsense]\n")
    server.expect("NameError: name 'nonsense' is not defined")
    assert curl(*way) == "page /a from the llama\n"
    Path("hooks.py").write_text(HOOK.format(word="pack"))
    server.expect(r"hooks\.py was loaded again")
    assert curl(*way) == "page /a from the pack\n"
    server.stop()


@pytest.mark.parametrize(
    ("host", "sent"),
    [
        (None, "localhost:{front}"),
        ("upstream", "localhost:{port}"),
        ("a.example:8", "a.example:8"),
    ],
)
def test_a_fixed_target_over_tls(start: Start, cloud: Site, host: str | None, sent: str) -> None:
    options = () if host is None else ("--host-header", host)
    server = start("mitm", "--mode", "forward", "--to", f"https://localhost:{cloud.port}", *options, *OURS)
    sent = sent.format(front=server.port, port=cloud.port)
    for client, version in (("http", "--http1.1"), ("https", "--http1.1"), ("https", "--http2")):
        url = f"{client}://localhost:{server.port}/a"
        assert curl(*TRUST, version, url) == "page /a from the cloud\n"
        server.expect(rf" GET https://{sent}/a 200 ")


def test_a_fixed_target_in_the_clear(start: Start, web: str, files: Path) -> None:
    server = start("mitm", "--mode", "forward", "--to", f"http://{web}", "--host-header", "upstream", *OURS)
    for client in ("http", "https"):
        assert curl(*TRUST, f"{client}://localhost:{server.port}/a") == "page /a via nothing\n"
        server.expect(rf" GET http://{web}/a 200 ")


def test_the_host_of_a_reverse_proxy(start: Start, web: str) -> None:
    inner = start("reverse", "--to", f"http://{web}", "--access-log", "json")
    for host, sent in (("upstream", inner.address), ("a.example", "a.example")):
        server = start("reverse", "--to", f"http://{inner.address}", "--host-header", host)
        curl(f"http://{server.address}/a")
        assert json.loads(inner.expect(r"^\{.*\}$")[0])["server.address"] == sent
