"""The fixture `cassette`: recorded once, replayed without the network, and clear about what is missing."""

import json
import os
import socket
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.http.grpc_peer_process import EXPECTED, PEER, grpc_server
from tests.testing.sites import Site
from tests.testing.sites import site as serve_site
from tests.tls.programs import needs

pytest_plugins = ["pytester"]

BEGIN = """
import json, os, pytest, subprocess, urllib.error, urllib.request
from llama.testing import Cassette, Redaction
HTTP, HTTPS, CA = os.environ["SITE_HTTP"], os.environ["SITE_HTTPS"], os.environ["SITE_CA"]
pytestmark = pytest.mark.llama_proxy(upstream_ca=CA)

def get(url, data=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=20) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.read()
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Site]:
    with serve_site(tmp_path) as made:
        for name, value in (("HTTP", made.http), ("HTTPS", made.https), ("CA", str(made.ca_file))):
            monkeypatch.setenv(f"SITE_{name}", value)
        yield made


class Suite:
    """A test file, run as often as needed; nothing that it does has to do with the runs before."""

    def __init__(self, pytester: pytest.Pytester, site: Site, env: pytest.MonkeyPatch) -> None:
        self.pytester = pytester
        self.env = env
        self.site = site

    @property
    def cassettes(self) -> Path:
        return self.pytester.path / "cassettes" / "test_it"

    def write(self, text: str) -> None:
        self.pytester.makepyfile(test_it=BEGIN + text)

    def run(self, *arguments: str, passed: int = 1, failed: int = 0, asked: int) -> pytest.RunResult:
        """Run it; so often the site is asked for something."""
        before = len(self.site.asked)
        result = self.pytester.runpytest_inprocess(
            "-p", "llama._pytest_plugin", "-p", "no:cacheprovider", *arguments
        )
        result.assert_outcomes(passed=passed, failed=failed)
        assert len(self.site.asked) - before == asked, self.site.asked[before:]
        return result

    def offline(self, *arguments: str, passed: int = 1, failed: int = 0) -> pytest.RunResult:
        """Run it with no names to resolve and nothing to reach but this machine's proxy."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", _local(socket.getaddrinfo))
            patch.setattr(socket.socket, "connect_ex", _no_connection)
            return self.run(*arguments, passed=passed, failed=failed, asked=0)

    def entries(self, name: str = "test_it") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.cassettes / f"{name}.har").read_text())["log"][
            "entries"
        ]
        return found


def _local(real: Callable[..., Any]) -> Callable[..., Any]:
    def lookup(host: str, *args: Any, **kwargs: Any) -> Any:
        assert host == "127.0.0.1", f"{host} was looked up"
        return real(host, *args, **kwargs)

    return lookup


def _no_connection(sock: socket.socket, address: object) -> int:
    raise AssertionError(f"{address} was connected to")  # llama's connector connects so, clients do not


@pytest.fixture
def suite(pytester: pytest.Pytester, site: Site, monkeypatch: pytest.MonkeyPatch) -> Suite:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    return Suite(pytester, site, monkeypatch)


def test_it_is_recorded_once_and_replayed_after_that(suite: Suite) -> None:
    suite.write(
        """
        @pytest.mark.cassette
        def test_it():
            assert get(HTTPS + "/a?b=1") == b"GET /a?b=1"
            assert get(HTTP + "/echo", b"posted", Content_Type="text/plain") == b"posted"
        """.replace("\n        ", "\n")
    )
    suite.run(asked=2)
    assert [each["request"]["method"] for each in suite.entries()] == ["GET", "POST"]
    written = (suite.cassettes / "test_it.har").read_bytes()
    suite.offline()
    suite.offline("--cassette=none")
    suite.offline("--cassette=new")
    assert (suite.cassettes / "test_it.har").read_bytes() == written
    assert sorted(each.name for each in suite.cassettes.iterdir()) == ["test_it.har"]
    suite.run("--cassette=all", asked=2)


def test_all_kinds_of_bodies_are_replayed(suite: Suite) -> None:
    suite.write(
        """
@pytest.mark.cassette
def test_it():
    assert get(HTTP + "/chunks") == b"hello " * 100
    assert get(HTTP + "/binary") == bytes(range(256)) * 4
    assert get(HTTP + "/events") == b"data: 0\\n\\ndata: 1\\n\\ndata: 2\\n\\n"
    assert get(HTTP + "/moved") == b"GET /landed"
    assert get(HTTP + "/echo", bytes(range(256)), Content_Type="a/b") == bytes(range(256))
    request = urllib.request.Request(HTTP + "/a", method="HEAD")
    with urllib.request.urlopen(request) as response:
        assert response.headers["Content-Length"] == "7" and response.read() == b""
"""
    )
    suite.run(asked=7)
    suite.offline()


def test_repeated_requests_are_answered_in_their_order(suite: Suite) -> None:
    suite.write(
        """
@pytest.mark.cassette
def test_it(cassette):
    first, second = get(HTTP + "/count"), get(HTTP + "/count")
    assert int(second) == int(first) + 1
    if os.environ.get("AGAIN"):
        assert b"It was recorded 2 times, and already requested as often." in get(HTTP + "/count")

@pytest.mark.cassette(repeat=True)
def test_the_last_again():
    answers = [get(HTTP + "/count") for _ in range(4 if os.environ.get("AGAIN") else 2)]
    assert len(set(answers)) == 2
"""
    )
    suite.run(passed=2, asked=4)
    suite.offline(passed=2)
    suite.env.setenv("AGAIN", "1")
    suite.offline(passed=1, failed=1).stdout.fnmatch_lines(["*It was recorded 2 times*"])


def test_a_missing_request_fails_the_test_and_shows_the_difference(suite: Suite) -> None:
    suite.write(
        """
DATA = {"name": "john", "amount": int(os.environ.get("AMOUNT", "1"))}

@pytest.mark.cassette(match=["method", "url", "body"])
def test_it():
    get(HTTP + "/landed")
    try:
        get(HTTP + "/echo?x=1&y=2", json.dumps(DATA).encode(), Content_Type="application/json")
    except Exception:
        pass

@pytest.mark.cassette
def test_path():
    said = get(HTTP + "/users/" + os.environ.get("WHO", "1") + "?page=" + os.environ.get("WHO", "1"))
    assert "WHO" not in os.environ or b"is not in the cassette" in said
"""
    )
    suite.run(passed=2, asked=3)
    suite.offline(passed=2)
    suite.env.setenv("AMOUNT", "2")
    suite.env.setenv("WHO", "2")
    result = suite.offline(passed=0, failed=2)
    result.stdout.fnmatch_lines(
        [
            f"POST {suite.site.http}/echo?x=1&y=2 is not in the cassette cassettes/test_it/test_it.har.",
            "The closest of 2 is number 2 (- cassette, + request):",
            f"    POST {suite.site.http}/echo",
            "  body",
            '  -  "amount": 1,',
            '  +  "amount": 2,',
            "(--cassette=new adds what is missing to the file, --cassette=all records all of it anew)",
        ]
    )
    result.stdout.fnmatch_lines(
        [
            f"  - GET {suite.site.http}/users/1",
            f"  + GET {suite.site.http}/users/2",
            "  query",
            "  - page=1",
            "  + page=2",
        ]
    )


def test_new_adds_what_is_missing(suite: Suite) -> None:
    suite.write(
        """
@pytest.mark.cassette
def test_it():
    for name in os.environ.get("NAMES", "ab"):
        assert get(HTTP + "/" + name) == b"GET /" + name.encode()
"""
    )
    suite.run(asked=2)
    suite.env.setenv("NAMES", "acb")
    suite.offline(passed=0, failed=1)
    suite.run("--cassette=new", asked=1)
    assert [each["request"]["url"][-1] for each in suite.entries()] == ["a", "b", "c"]
    suite.offline()


def test_none_needs_a_file(suite: Suite) -> None:
    suite.write("@pytest.mark.cassette\ndef test_it():\n    get(HTTP + '/a')\n")
    result = suite.offline("--cassette=none", passed=0, failed=1)
    result.stdout.fnmatch_lines(["*The file does not exist.*"])
    assert not suite.cassettes.exists()


def test_a_test_that_fails_writes_nothing(suite: Suite) -> None:
    suite.write(
        "@pytest.mark.cassette\ndef test_it():\n    get(HTTP + '/a')\n    assert 'OK' in os.environ\n"
    )
    result = suite.run(passed=0, failed=1, asked=1)
    result.stdout.fnmatch_lines(["*test_it.har was not written, because the test failed"])
    assert not suite.cassettes.exists()
    suite.env.setenv("OK", "1")
    suite.run(asked=1)
    before = suite.entries()
    suite.env.delenv("OK")
    suite.run("--cassette=all", passed=0, failed=1, asked=1)
    assert suite.entries() == before


def test_a_request_without_a_response_is_reported_and_not_recorded(suite: Suite) -> None:
    suite.write(
        "@pytest.mark.cassette\ndef test_it():\n    get('http://127.0.0.1:1/a')\n    assert 'OK' in os.environ\n"
    )
    suite.run(passed=0, failed=1, asked=0).stdout.fnmatch_lines(
        ["*not recorded: GET http://127.0.0.1:1/a: *"]
    )
    suite.env.setenv("OK", "1")
    suite.run(asked=0)
    assert not suite.cassettes.exists()


def test_a_body_that_is_too_large_fails_the_test(suite: Suite) -> None:
    suite.write("@pytest.mark.cassette(max_body=100)\ndef test_it():\n    get(HTTP + '/binary')\n")
    result = suite.run(passed=0, failed=1, asked=1)
    result.stdout.fnmatch_lines(["*/binary cannot be recorded: it has more than max_body=100 bytes"])
    assert not suite.cassettes.exists()


# what is never written

SECRETS = """
@pytest.mark.cassette(redact=Redaction(query=["key"], fields=["access_token", "password"]))
def test_it():
    said = json.loads(get(HTTPS + "/login?key=k3y-in-the-url&page=1", b"user=john&password=hunter%2022",
                          Content_Type="application/x-www-form-urlencoded"))
    token = said["access_token"]
    assert said["user"]["name"] == "john"
    assert get(HTTPS + "/whoami", Authorization="Bearer " + token).decode() == "you are Bearer " + token
    assert get(HTTPS + "/a/" + token, Cookie="sid=abcdef123456; x=1").decode() == "GET /a/" + token
    asked = json.dumps({"nested": [{"Password": "another secret"}], "n": 1}).encode()
    get(HTTPS + "/echo", asked, Content_Type="application/json")
"""
HIDDEN = ("s3cret-t0ken-1", "hunter", "k3y-in-the-url", "abcdef123456", "another secret")


def test_redacted_values_are_never_written(suite: Suite) -> None:
    suite.write(SECRETS)
    suite.run(asked=4)
    text = (suite.cassettes / "test_it.har").read_text()
    for secret in HIDDEN:
        assert secret not in text
    login, whoami, path, echoed = suite.entries()
    assert login["request"]["url"].endswith("/login?key=REDACTED&page=1")
    assert login["request"]["postData"]["text"] == "user=john&password=REDACTED"
    assert json.loads(login["response"]["content"]["text"]) == {
        "access_token": "REDACTED",
        "user": {"name": "john", "password": "REDACTED"},
    }
    assert login["response"]["cookies"] == [{"name": "sid", "value": "REDACTED", "path": "/"}]
    assert {"name": "Authorization", "value": "Bearer REDACTED"} in whoami["request"]["headers"]
    assert whoami["response"]["content"]["text"] == "you are Bearer REDACTED"
    assert path["request"]["url"].endswith("/a/REDACTED")
    assert {each["name"] for each in path["request"]["cookies"]} == {"sid", "x"}
    assert json.loads(echoed["request"]["postData"]["text"]) == {"nested": [{"Password": "REDACTED"}], "n": 1}
    suite.offline()


def test_project_rules_and_custom_functions(suite: Suite) -> None:
    suite.pytester.makeconftest(
        """
        import pytest
        from llama.testing import Redaction

        def clean(exchange):
            if exchange.url.endswith("/events"):
                return None
            exchange.headers.discard("user-agent")
            return exchange

        @pytest.fixture(scope="session")
        def cassette_redaction():
            return Redaction(headers=["x-mine"], function=clean)
        """
    )
    suite.write(
        """
@pytest.mark.cassette
def test_it():
    get(HTTP + "/a", X_Mine="mine, and long enough")
    if "EVENTS" in os.environ:
        get(HTTP + "/events")
"""
    )
    suite.env.setenv("EVENTS", "1")
    suite.run(asked=2)
    (entry,) = suite.entries()
    names = {each["name"].lower(): each["value"] for each in entry["request"]["headers"]}
    assert names["x-mine"] == "REDACTED" and "user-agent" not in names
    suite.env.delenv("EVENTS")
    suite.offline()


# clients


def test_coroutines_httpx2_over_h2_and_aiohttp(suite: Suite) -> None:
    pytest.importorskip("httpx2")
    pytest.importorskip("aiohttp")
    suite.write(
        """
import asyncio, aiohttp, httpx2

@pytest.mark.cassette
async def test_it(llama_proxy):
    async with httpx2.AsyncClient(http2=True) as client:
        one, two = await asyncio.gather(client.get(HTTPS + "/gzip"), client.post(HTTPS + "/echo", json={"a": 1}))
        assert (one.http_version, one.text, two.json()) == ("HTTP/2", "hello " * 100, {"a": 1})
    async with aiohttp.ClientSession(trust_env=True) as session:
        async with session.get(HTTPS + "/binary", ssl=llama_proxy.ssl_context) as response:
            assert await response.read() == bytes(range(256)) * 4
    assert len(llama_proxy.exchanges) == 3
"""
    )
    suite.run(asked=3)
    suite.offline()


@needs("curl")
@pytest.mark.peer
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_programs(suite: Suite, version: str) -> None:
    suite.write(
        f"""
@pytest.mark.cassette
def test_it():
    command = ["curl", "-sS", "{version}", "--compressed", "-L", HTTPS + "/moved", HTTPS + "/gzip"]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "GET /landed" + "hello " * 100
"""
    )
    suite.run(asked=3)
    suite.offline()


def test_websockets_are_replayed(suite: Suite) -> None:
    suite.write(
        """
from websockets.asyncio.client import connect

@pytest.mark.cassette
async def test_it(cassette):
    async with connect("ws" + HTTP[4:] + "/chat", proxy=cassette.proxy.url) as socket:
        for said in ("one", os.environ.get("SAY", "two"), "three"):
            await socket.send(said)
            assert await socket.recv() == "echo " + said
        await socket.send(b"binary")
        assert await socket.recv() == b"binary"
"""
    )
    suite.run(asked=1)
    suite.offline()
    suite.env.setenv("SAY", "else")
    result = suite.offline(passed=0, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*/chat differs from the cassette cassettes/test_it/test_it.har:",
            "  - 'two'",
            "  + 'else'",
        ]
    )


def test_hosts_that_are_ignored_are_left_alone(suite: Suite) -> None:
    suite.write(
        """
@pytest.mark.cassette(ignore=["127.0.0.1"])
def test_it():
    assert get(HTTP + "/a") == b"GET /a"
    assert get(HTTPS + "/b") == b"GET /b"
"""
    )
    suite.run(asked=2)
    assert [each["request"]["url"][-2:] for each in suite.entries()] == ["/b"]
    suite.run(asked=1)


def test_other_protocols_than_http_cannot_be_replayed(suite: Suite) -> None:
    suite.write(
        """
import socket
@pytest.mark.cassette
def test_it(cassette):
    with socket.create_connection(("127.0.0.1", int(cassette.proxy.url.rpartition(":")[2])), timeout=20) as sock:
        sock.sendall(b"CONNECT other.example:25 HTTP/1.1\\r\\nHost: other.example:25\\r\\n\\r\\n")
        assert b" 200 " in sock.recv(1000)
        sock.sendall(b"\\0\\1\\2\\3")
        assert not sock.recv(1000)
"""
    )
    result = suite.offline("--cassette=none", passed=0, failed=1)
    result.stdout.fnmatch_lines(["a connection to other.example:25 cannot be replayed*"])


# where it is, and what it is told


def test_each_test_has_its_own_file(suite: Suite) -> None:
    suite.write(
        """
@pytest.mark.cassette
@pytest.mark.parametrize("name", ["a", "b/c", "b c"])
def test_it(name):
    get(HTTP + "/" + name[0])

class TestClass:
    def test_it(self, cassette):
        get(HTTP + "/class")

@pytest.mark.cassette("named")
def test_named():
    get(HTTP + "/named")
"""
    )
    suite.run(passed=5, asked=5)
    names = sorted(each.name for each in suite.cassettes.iterdir())
    assert len(names) == 5 and {"TestClass.test_it.har", "named.har"} <= set(names)
    assert all("/" not in name and " " not in name and "[" not in name for name in names)
    suite.offline(passed=5)


def test_under_xdist_each_worker_replays_its_own(suite: Suite) -> None:
    pytest.importorskip("xdist")
    suite.write(
        """
@pytest.mark.cassette
@pytest.mark.parametrize("name", "abcdef")
def test_it(name):
    assert get(HTTP + "/" + name) == b"GET /" + name.encode()
"""
    )
    arguments = ("-p", "llama._pytest_plugin", "-p", "xdist.plugin", "-p", "no:cacheprovider", "-n", "2")
    suite.pytester.runpytest_subprocess(*arguments).assert_outcomes(passed=6)
    assert len(suite.site.asked) == 6 and len(list(suite.cassettes.iterdir())) == 6
    suite.pytester.runpytest_subprocess(*arguments).assert_outcomes(passed=6)
    assert len(suite.site.asked) == 6


def test_the_mode_is_that_of_the_command_line_then_the_marker_then_the_configuration(suite: Suite) -> None:
    suite.write(
        """
def test_plain(cassette):
    print("plain is", cassette.mode)

@pytest.mark.cassette(mode="all")
def test_marked(cassette):
    print("marked is", cassette.mode)
"""
    )
    suite.run("-s", passed=2, asked=0).stdout.fnmatch_lines(["*plain is once*", "*marked is all*"])
    suite.pytester.makeini("[pytest]\ncassette = none\n")
    suite.run("-s", passed=2, asked=0).stdout.fnmatch_lines(["*plain is none*", "*marked is all*"])
    outcome = suite.run("-s", "--cassette=new", passed=2, asked=0)
    outcome.stdout.fnmatch_lines(["*plain is new*", "*marked is new*"])


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("mode='some'", "*expected one of once, none, new, all*"),
        ("match=['header']", "*expected a list of method, scheme, host, path, query, url, body*"),
        ("ignore='localhost'", "*expected a list of hosts*"),
        ("record='x'", "*(record=...): expected name, mode, match, redact, ignore, repeat, max_body*"),
    ],
)
def test_an_invalid_marker_is_an_error(suite: Suite, marker: str, said: str) -> None:
    suite.write(f"@pytest.mark.cassette({marker})\ndef test_it():\n    pass\n")
    outcome = suite.pytester.runpytest_inprocess("-p", "llama._pytest_plugin", "-p", "no:cacheprovider")
    outcome.assert_outcomes(errors=1)
    outcome.stdout.fnmatch_lines([said])


def test_a_file_that_is_not_a_cassette_is_an_error(suite: Suite) -> None:
    suite.write("@pytest.mark.cassette\ndef test_it():\n    get(HTTP + '/a')\n")
    suite.cassettes.mkdir(parents=True)
    (suite.cassettes / "test_it.har").write_text("{}")
    outcome = suite.pytester.runpytest_inprocess("-p", "llama._pytest_plugin", "-p", "no:cacheprovider")
    outcome.assert_outcomes(errors=1)
    outcome.stdout.fnmatch_lines(["*test_it.har is no HAR file*"])


def test_a_response_that_the_client_left_breaks_off_at_the_same_byte(suite: Suite) -> None:
    suite.write(
        """
import http.client
@pytest.mark.cassette
def test_it(cassette):
    client = http.client.HTTPConnection(cassette.proxy.url.removeprefix("http://"), timeout=20)
    client.request("GET", HTTP + "/endless")
    with client.getresponse() as response:
        assert response.read(6) == b"hello "
    client.close()
    cassette.proxy.wait("/endless")
"""
    )
    suite.run(asked=1)
    suite.offline()


@pytest.mark.peer
@pytest.mark.llama_timeout(120)
@pytest.mark.parametrize("match", ["['method', 'url']", "['method', 'url', 'body']"])
def test_grpc_calls_of_all_four_kinds_are_replayed(suite: Suite, match: str) -> None:
    with grpc_server() as port:
        suite.env.setenv("GRPC_PEER", f"{PEER} call localhost:{port} proxied")
        suite.write(
            f"""
import sys
@pytest.mark.cassette(match={match})
def test_it():
    command = [sys.executable, *os.environ["GRPC_PEER"].split()]
    done = subprocess.run(command, capture_output=True, timeout=60, encoding="utf-8")
    assert done.stdout == {EXPECTED!r}, done.stderr
"""
        )
        suite.run(asked=0)
    suite.offline()
