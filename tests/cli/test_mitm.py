"""`llama mitm` in a process of its own, with curl before it and a site behind it."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Start
from tests.cli.mitm_site import Site, curl, site
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
