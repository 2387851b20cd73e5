"""The fixture `llama_proxy`: clients that block and others, and what is kept of what they do."""

import asyncio
import json
import os
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Generator
from pathlib import Path

import pytest

from llama import layer
from llama.http import Request, RequestHandler, Response
from llama.testing import RecordingProxy
from llama.testing._fixtures.proxy_env import environment
from tests.testing.sites import Site
from tests.testing.sites import site as serve_site
from tests.tls.programs import needs

pytest_plugins = ["pytester"]


@pytest.fixture
def site(tmp_path: Path) -> Generator[Site]:
    with serve_site(tmp_path) as made:
        yield made


@pytest.fixture
def told(request: pytest.FixtureRequest, site: Site) -> None:
    """The site's authority is known only now, after the markers were written."""
    request.applymarker(pytest.mark.llama_proxy(upstream_ca=site.ca_file))


def get(url: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as response:
        data: bytes = response.read()
        return data


def test_requests_of_urllib_are_recorded(site: Site, llama_proxy: RecordingProxy) -> None:
    assert get(f"{site.http}/a?b=1", Accept="text/plain") == b"GET /a?b=1"
    (exchange,) = llama_proxy.exchanges
    assert (exchange.method, exchange.url, exchange.status) == ("GET", f"{site.http}/a?b=1", 200)
    assert exchange.headers["accept"] == "text/plain"
    assert exchange.response_body.read() == b"GET /a?b=1"
    assert 0 < exchange.wait < 20


@pytest.mark.usefixtures("told")
def test_https_is_intercepted_and_trusted(site: Site, llama_proxy: RecordingProxy) -> None:
    assert get(f"{site.https}/a") == b"GET /a"
    request = urllib.request.Request(f"{site.https}/echo", b"posted", {"Content-Type": "text/plain"})
    with urllib.request.urlopen(request, timeout=20) as response:
        assert response.read() == b"posted"
    assert [(each.method, each.body.read()) for each in llama_proxy.exchanges] == [
        ("GET", b""),
        ("POST", b"posted"),
    ]


def test_a_response_is_recorded_once_it_was_read(site: Site, llama_proxy: RecordingProxy) -> None:
    for path in ("/a", "/events", "/gzip", "/binary") * 10:
        get(f"{site.http}{path}")
        assert llama_proxy.exchanges[-1].url.endswith(path)
        assert llama_proxy.exchanges[-1].response_body.complete
    llama_proxy.clear()
    assert llama_proxy.exchanges == []


def test_an_untrusted_upstream_is_reported_to_the_client(site: Site, llama_proxy: RecordingProxy) -> None:
    with pytest.raises(urllib.error.HTTPError, match="502") as failed:
        get(f"{site.https}/a")
    failed.value.close()
    assert "certificate is not trusted" in llama_proxy.exchanges[0].error


@pytest.mark.llama_proxy(upstream_ca=False)
def test_verification_of_upstreams_can_be_disabled(site: Site, llama_proxy: RecordingProxy) -> None:
    assert get(f"{site.https}/a") == b"GET /a"


def test_cas_of_the_environment_stay_trusted(
    site: Site, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(site.ca_file))
    request.getfixturevalue("llama_proxy")
    assert os.environ["SSL_CERT_FILE"] != str(site.ca_file)
    assert get(f"{site.https}/a") == b"GET /a"


@needs("curl")
@pytest.mark.peer
@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_a_program_that_the_test_starts_is_recorded(
    site: Site, llama_proxy: RecordingProxy, version: str
) -> None:
    done = subprocess.run(
        ["curl", "-sS", version, f"{site.https}/a"], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "GET /a"
    (exchange,) = llama_proxy.exchanges
    assert (exchange.url, exchange.version) == (f"{site.https}/a", version.removeprefix("--http"))


@pytest.mark.usefixtures("told")
async def test_httpx2_and_aiohttp_in_a_coroutine(site: Site, llama_proxy: RecordingProxy) -> None:
    httpx2, aiohttp = pytest.importorskip("httpx2"), pytest.importorskip("aiohttp")
    async with httpx2.AsyncClient(http2=True) as client:
        assert (await client.get(f"{site.https}/x")).text == "GET /x"
    async with (
        aiohttp.ClientSession(trust_env=True) as session,
        session.get(f"{site.https}/y", ssl=llama_proxy.ssl_context) as response,
    ):
        assert await response.text() == "GET /y"
    assert [(each.url[-2:], each.version) for each in llama_proxy.exchanges] == [("/x", "2"), ("/y", "1.1")]


async def test_a_websocket_is_recorded(site: Site, llama_proxy: RecordingProxy) -> None:
    websockets = pytest.importorskip("websockets.asyncio.client")
    async with websockets.connect(f"ws{site.http[4:]}/chat", proxy=llama_proxy.url) as socket:
        await socket.send("hi")
        assert await socket.recv() == "echo hi"
    exchange = await llama_proxy.async_wait("/chat")
    assert [(each.from_client, each.data) for each in exchange.messages] == [(True, "hi"), (False, "echo hi")]


@layer
async def teapot(request: Request, inner: RequestHandler) -> Response:
    return Response(418, body=b"short and stout")


@pytest.mark.llama_proxy(layers=[teapot])
def test_layers_answer_without_an_upstream(llama_proxy: RecordingProxy) -> None:
    for url in ("http://nowhere.example/", "https://nowhere.example/"):
        with pytest.raises(urllib.error.HTTPError, match="418") as answered:
            get(url)
        assert answered.value.read() == b"short and stout"
        answered.value.close()
    assert [each.status for each in llama_proxy.exchanges] == [418, 418]


@pytest.mark.llama_proxy(layers=[teapot])
def test_a_request_that_a_layer_answers_unread_is_recorded_completely(llama_proxy: RecordingProxy) -> None:
    for number in range(20):
        data = bytes([number]) * 100_000
        with pytest.raises(urllib.error.HTTPError, match="418") as answered:
            urllib.request.urlopen("http://nowhere.example/", data, timeout=20)
        answered.value.close()
        assert llama_proxy.exchanges[-1].body.read() == data


@pytest.mark.llama_proxy(record_bodies=3)
def test_recorded_bodies_are_truncated(site: Site, llama_proxy: RecordingProxy) -> None:
    get(f"{site.http}/gzip")
    body = llama_proxy.exchanges[0].response_body
    assert (body.read(), body.size) == (b"hel", 600)


@pytest.mark.llama_proxy(record_bodies=False)
def test_no_bodies_are_kept(site: Site, llama_proxy: RecordingProxy) -> None:
    get(f"{site.http}/binary")
    body = llama_proxy.exchanges[0].response_body
    assert (body.read(), body.size) == (b"", 1024)


def test_waiting_for_background_exchanges(site: Site, llama_proxy: RecordingProxy) -> None:
    clients = [threading.Thread(target=get, args=(f"{site.http}/{name}",)) for name in ("a", "b")]
    for client in clients:
        client.start()
    assert llama_proxy.wait("/b").url == f"{site.http}/b"
    assert llama_proxy.wait(lambda each: each.url.endswith("/a")).status == 200
    for client in clients:
        client.join()
    with pytest.raises(TimeoutError, match=r"no exchange matches '/c' after 0.01 s; there were: GET http"):
        llama_proxy.wait("/c", timeout=0.01)


async def test_waiting_in_a_coroutine(site: Site, llama_proxy: RecordingProxy) -> None:
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(llama_proxy.async_wait("/a"))
        await asyncio.to_thread(get, f"{site.http}/a")
    assert waiting.result().status == 200
    with pytest.raises(TimeoutError, match="no exchange matches"):
        await llama_proxy.async_wait("/c", timeout=0.01)


def test_it_is_saved_as_a_har(site: Site, llama_proxy: RecordingProxy, tmp_path: Path) -> None:
    get(f"{site.http}/a")
    path = llama_proxy.save(tmp_path / "out.har")
    (entry,) = json.loads(path.read_text())["log"]["entries"]
    assert entry["response"]["content"]["text"] == "GET /a"


def test_the_environment_leads_to_it(llama_proxy: RecordingProxy) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "https_proxy"):
        assert os.environ[name] == llama_proxy.url
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"):
        assert os.environ[name] == str(llama_proxy.ca_file)
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == ""
    assert len(ssl.create_default_context().get_ca_certs()) == 1
    assert len(llama_proxy.ssl_context.get_ca_certs()) == 1


def test_the_environment_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "before")
    monkeypatch.delenv("TWO", raising=False)
    with environment({"ONE": "within", "TWO": "within"}):
        assert os.environ["ONE"] == os.environ["TWO"] == "within"
    assert os.environ["ONE"] == "before" and "TWO" not in os.environ


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    return pytester.runpytest_inprocess("-p", "llama._pytest_plugin", "-p", "no:cacheprovider", *arguments)


def test_a_marker_alone_starts_the_proxy_after_shared_fixtures(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("HTTP_PROXY", "http://mine")
    pytester.makepyfile(
        """
        import os, pytest

        @pytest.fixture(scope="module")
        def shared():
            return os.environ["HTTP_PROXY"]

        @pytest.fixture
        def own():
            return os.environ["HTTP_PROXY"]

        @pytest.mark.llama_proxy
        def test_marked(own, shared):
            assert own.startswith("http://127.0.0.1:") and shared == "http://mine"

        @pytest.mark.llama_proxy
        async def test_marked_coroutine():
            assert os.environ["HTTP_PROXY"].startswith("http://127.0.0.1:")

        def test_without():
            assert os.environ["HTTP_PROXY"] == "http://mine"
        """
    )
    run(pytester).assert_outcomes(passed=3)


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("layer=[]", "*expected layers, upstream_ca, record_bodies, connect*"),
        ("[]", "*takes keywords only*"),
        ("upstream_ca='none.pem'", "*upstream_ca='none.pem'*: no such file or directory*"),
        ("record_bodies=-1", "*record_bodies=-1: expected a count of bytes*"),
    ],
)
def test_an_invalid_marker_is_an_error(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, marker: str, said: str
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        f"import pytest\n@pytest.mark.llama_proxy({marker})\ndef test_x(llama_proxy):\n    pass\n"
    )
    outcome = run(pytester)
    outcome.assert_outcomes(errors=1)
    outcome.stdout.fnmatch_lines([said])


def test_the_plugin_loads_no_more_than_it_needs() -> None:
    late = {"llama.http", "llama.tls", "llama.mitm", "llama.testing"}
    code = f"import sys, llama._pytest_plugin; print(sorted({late} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
