"""The options of `llama mitm`: what they do to what passes, and what is wrong with them."""

import asyncio
import json
import re
import shlex
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from llama import RefusedError, TLSError, TruncatedError, http, mitm, serve, stack, tls
from llama._cli.common_options import CommonOptions
from llama._cli.mitm.build import handler, hooks
from llama._cli.mitm.command import mitm_command
from llama._cli.mitm.flow_summary import FlowSummary, FlowTable
from llama._cli.mitm.observers import Observers
from llama._cli.mitm.options import MitmOptions, split
from llama.http import Request, Response
from llama.mitm._har.document import to_entry
from llama.mitm._har.file import document
from llama.tls import CertificateAuthority
from tests.cli.conftest import Call
from tests.mitm.worlds import World, page


def parsed(*line: str) -> tuple[CommonOptions, MitmOptions]:
    params = mitm_command.make_context("mitm", ["--listen", "127.0.0.1:0", *line]).params
    params.pop("command")
    return split(params)


class Door:
    """A proxy as these options make it, a client of it, and a site behind it."""

    def __init__(self, client: http.RequestHandler, port: int, seen: asyncio.Queue[FlowSummary]) -> None:
        self.client = client
        self.site = f"https://localhost:{port}"
        self.seen = seen
        """What the proxy tells, when it does: clients know of some of it first."""

    async def get(self, path: str = "/a") -> tuple[int, str]:
        response = await self.client(Request("GET", self.site + path))
        try:
            return response.status, (await response.body.read()).decode()
        finally:
            await response.aclose()


@asynccontextmanager
async def proxied(
    world: World, *line: str, upstream: http.RequestHandler = page, trust: Path | None = None
) -> AsyncGenerator[Door]:
    async with AsyncExitStack() as exits:
        site = await exits.enter_async_context(
            serve(world.https(upstream, "localhost"), listen="127.0.0.1:0")
        )
        given, chosen = parsed(*(part.replace("PORT", str(site.port)) for part in line))
        seen: asyncio.Queue[FlowSummary] = asyncio.Queue()
        front = handler(given, chosen, world.ca, hooks(given, chosen), Observers.to(seen.put_nowait))
        served = await exits.enter_async_context(serve(front, listen="127.0.0.1:0"))
        over = http.connect(f"127.0.0.1:{served.port}")
        client = http.client(over, tls=tls.connect(over, ca=trust or world.pem))
        await exits.enter_async_context(client)
        yield Door(client, site.port, seen)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    return World.make(tmp_path)


TRUSTED = ("--upstream-ca", "site-ca.pem")
PAGE = (200, "GET /a from the cloud")


@pytest.mark.parametrize(
    "line",
    [
        "--passthrough localhost",
        "--passthrough sni=localhost",
        "--passthrough client=127.0.0.0/8",
        "--passthrough localhost:PORT,client=127.0.0.1",
        "--intercept *.example",
        "--intercept localhost --passthrough localhost",
        "--intercept localhost:1",
    ],
)
async def test_what_is_passed_through(world: World, line: str) -> None:
    async with proxied(world, *TRUSTED, *line.split(), trust=world.site_pem) as door:
        assert await door.get() == PAGE
    told = await door.seen.get()
    assert (told.method, f"https://{told.url}", told.size > 1000) == ("PASS", door.site, True)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--intercept localhost",
        "--passthrough *.example",
        "--passthrough localhost:1",
        "--passthrough localhost,client=10.0.0.0/8",
    ],
)
async def test_what_is_looked_into(world: World, line: str) -> None:
    async with proxied(world, *TRUSTED, *line.split()) as door:
        assert await door.get() == PAGE
        told = await door.seen.get()
        assert str(told).rpartition(" 21 B ")[0] == f"GET {door.site}/a 200"


@pytest.mark.parametrize("other", ["passthrough", "intercept"])
async def test_what_is_blocked(world: World, other: str) -> None:
    async with proxied(world, *TRUSTED, f"--{other}", "localhost", "--block", "localhost") as door:
        with pytest.raises(RefusedError, match="403"):
            await door.get()
        told = await door.seen.get()
        assert (told.method, told.status) == ("CONNECT", 403)
        assert told.error.endswith("is blocked by a rule")


async def test_a_name_that_is_blocked_is_told_by_tls(world: World) -> None:
    async with proxied(world, *TRUSTED, "--block", "sni=localhost") as door:
        with pytest.raises(TLSError, match="access_denied"):
            await door.get()
        told = await door.seen.get()
        assert (told.method, told.status) == ("CONNECT", 0)


@pytest.mark.parametrize("pinned", ["", "--pinned-action block"])
async def test_a_client_that_pins(world: World, pinned: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "llama.mitm")
    options = (*TRUSTED, "--pin-after", "2", "--pin-for", "1m", *pinned.split())
    async with proxied(world, *options, trust=world.site_pem) as door:
        for _ in range(2):
            with pytest.raises(TLSError):
                await door.get()
            assert "TLS handshake as localhost failed" in (await door.seen.get()).error
        learned = [each.message for each in caplog.records if each.name == "llama.mitm"]
        what = "blocked" if pinned else "passed through"
        assert learned == [f"127.0.0.1 refuses our certificate for localhost: it is {what} from now on"]
        if pinned:
            with pytest.raises(TLSError, match="access_denied"):
                await door.get()
        else:
            assert await door.get() == PAGE


async def test_upstreams_that_nobody_trusts(world: World) -> None:
    async with proxied(world) as door:
        status, text = await door.get()
        assert (status, "is not trusted" in text) == (502, True)
    async with proxied(world, "--insecure") as door:
        assert await door.get() == PAGE
    async with proxied(world, "--pass-untrusted", trust=world.site_pem) as door:
        assert await door.get() == PAGE


async def test_a_revoked_certificate(world: World) -> None:
    async def served(*revoked: str) -> tuple[int, str]:
        async with proxied(world, *TRUSTED, *revoked) as door:
            return await door.get()

    pair = world.site_ca.issue("localhost")
    digest = x509.load_pem_x509_certificate(pair.cert_pem).fingerprint(hashes.SHA256()).hex()
    world.site_ca.issue = lambda *names: pair  # type: ignore[method-assign]
    assert await served() == PAGE
    status, text = await served("--revoke", digest)
    assert (status, "revoked by a rule" in text) == (502, True)


def recording(url: str) -> None:
    """in.har: one exchange."""
    seen = mitm.Recorded(0.0, "GET", url, "1.1", http.Headers(), status=200)
    seen.response_body = mitm.RecordedBody(b"recorded", size=8)
    Path("in.har").write_text(json.dumps(document([to_entry(seen, Path())])))


@pytest.mark.parametrize(
    ("strict", "otherwise"), [("", "cannot connect to"), ("--replay-strict", "nothing was recorded")]
)
async def test_a_recording_answers_in_the_place_of_an_upstream_that_is_gone(
    world: World, strict: str, otherwise: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        site = f"https://127.0.0.1:{unused.getsockname()[1]}"
    recording(f"{site}/a")
    async with proxied(world, "--replay", "in.har", *strict.split()) as door:
        door.site = site
        assert await door.get() == (200, "recorded")
        status, text = await door.get("/b")
        assert status == 502
        assert otherwise in text


async def test_a_strict_replay_reaches_no_upstream(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        upstream.settimeout(0)
        site = f"https://127.0.0.1:{upstream.getsockname()[1]}"
        recording(f"{site}/a")
        async with proxied(world, "--replay", "in.har", "--replay-strict") as door:
            door.site = site
            assert await door.get() == (200, "recorded")
            assert (await door.get())[0] == 502
            assert (await door.get("/b"))[0] == 502
        async with proxied(world, "--replay", "in.har", "--replay-strict", "--replay-repeat") as door:
            door.site = site
            assert [await door.get() for _ in range(2)] == [(200, "recorded")] * 2
        with pytest.raises(BlockingIOError):
            upstream.accept()


async def test_answers_from_elsewhere(world: World) -> None:
    Path("there.txt").write_text("from a file")

    async def other(request: Request) -> Response:
        return Response(200, {}, f"{request.path} from the other")

    async with serve(stack(http.server(), other), listen="127.0.0.1:0") as there:
        options = (
            *("--map-local", "https://localhost:PORT/file=there.txt"),
            *("--map-remote", f"https://localhost:PORT/api/=http://127.0.0.1:{there.port}/v2/"),
        )
        async with proxied(world, *TRUSTED, *options) as door:
            assert await door.get("/file") == (200, "from a file")
            assert await door.get("/api/x") == (200, "/v2/x from the other")
            assert await door.get() == PAGE


async def test_another_server_is_trusted_as_upstreams_are(world: World) -> None:
    options = ("--map-remote", "https://localhost:PORT/api/=https://localhost:PORT/v2/")
    async with proxied(world, *TRUSTED, *options) as door:
        assert await door.get("/api/x") == (200, "GET /v2/x from the cloud")
    async with proxied(world, *options) as door:
        assert (await door.get("/api/x"))[0] == 502


async def test_what_goes_wrong_on_purpose(world: World) -> None:
    async with proxied(world, *TRUSTED, "--faults", "errors=1,status=418,seed=1") as door:
        assert (await door.get())[0] == 418
        assert (await door.seen.get()).status == 418
    async with proxied(world, *TRUSTED, "--faults", "aborts=1,after=4,latency=1ms-2ms") as door:
        with pytest.raises(TruncatedError):
            await door.get()
        assert (await door.seen.get()).error == "broken off"


async def test_a_pace(world: World) -> None:
    async with proxied(world, *TRUSTED, "--throttle", "100") as door:
        before = time.perf_counter()
        assert await door.get() == PAGE  # 21 bytes
        assert time.perf_counter() - before >= 0.1


async def test_an_upstream_that_is_reached_late(world: World) -> None:
    """Its certificate is not seen before, so ours has the name that was asked for alone."""
    async with proxied(world, *TRUSTED, "--lazy-upstream") as door:
        assert await door.get() == PAGE


async def test_bodies_of_a_recording_have_a_bound(world: World) -> None:
    async with proxied(world, *TRUSTED, "--har", "out.har", "--har-limit", "5") as door:
        assert await door.get() == PAGE
    (entry,) = mitm.read_har(Path("out.har"))
    assert entry.response_body.read() == b"GET /"


def test_hooks_of_options_go_around_those_that_answer(world: World) -> None:
    Path("hooks.py").write_text("layers = []\n")
    recording("https://a.example/")
    line = (
        "--replay in.har --map-local https://b.example/=. --map-remote https://c.example/=http://d.example/"
    )
    given, chosen = parsed(*line.split(), "--script", "hooks.py", "--har", "out.har", "--throttle", "1K")
    made = hooks(given, chosen)
    assert made.script is not None
    made.script.close()
    names = [repr(each(page)).partition("(")[0] for each in made.layers]
    assert names == [
        "mitm.record", "company", "mitm.throttle", "company", "script",
        "mitm.map_local", "mitm.map_remote", "mitm.replay_server"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("--mode telnet", "'--mode'"),
        ("--listen nowhere", "'--listen'"),
        ("--to a.example", "'--to'"),
        ("--passthrough a,b=c", "'--passthrough'"),
        ("--block client=a.example", "'--block'"),
        ("--intercept ,", "'--intercept'"),
        ("--intercept a.example:http", "'--intercept'"),
        ("--pin-after 0", "'--pin-after'"),
        ("--map-local there", "'--map-local'"),
        ("--mode forward --to h3://a.example", "'--to'"),
        ("--mode forward --to https://a.example/path", "'--to'"),
        ("--mode forward --to a.example:1 --host-header a/b", "'--host-header'"),
        ("--throttle 0", "'--throttle'"),
        ("--throttle fast", "'--throttle'"),
        ("--har-limit -1", "'--har-limit'"),
        ("--faults errors=2", "'--faults'"),
        ("--faults errors=many", "'--faults'"),
        ("--faults lateness=1s", "'--faults'"),
        ("--faults latency=2s-1s", "'--faults'"),
        ("--har", "'--har'"),
        ("--revoke 00", "'--revoke'"),
        ("--nonesuch", "--nonesuch"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error(llama: Call, line: str, option: str) -> None:
    done = llama(f"mitm {line}")
    assert done.code == 2
    assert option in done.errors


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("--mode forward", "--mode forward: "),
        ("--mode forward --to a.example:1 --user a:b", "--user: "),
        ("--to a.example:443", "--to: "),
        ("--host-header upstream", "--host-header: "),
        ("--listen :0", "--listen: "),
        ("--listen :0 --mode socks5", "--listen: "),
        ("--insecure --upstream-ca ca.pem", "--upstream-ca: "),
        ("--upstream-ca missing.pem", "--upstream-ca: "),
        ("--lazy-upstream --pass-untrusted", "--pass-untrusted: "),
        ("--pinned-action block", "--pinned-action: "),
        ("--pin-for 1m", "--pin-for: "),
        ("--har missing/out.har", "--har: missing/out.har: No such file or directory"),
        ("--har-limit 1K", "--har-limit: "),
        ("--replay missing.har", "--replay: missing.har: No such file or directory"),
        ("--replay ca.pem", "--replay: ca.pem is no HAR file"),
        ("--replay-strict", "--replay-strict: "),
        ("--replay ca.pem --replay-repeat", "--replay-repeat: expected --replay-strict too"),
        ("--map-local http://a.example/=missing", "--map-local: "),
        ("--map-local there=.", "--map-local: "),
        ("--map-remote http://a.example/=there", "--map-remote: "),
        ("--map-remote http://a/=http://b/ --map-remote http://a/=http://c/", "--map-remote: "),
        ("--script missing.py", "--script: "),
        ("--via gopher://a.example", "--via: "),
        ("--ca ca.pem", "--ca: "),
        ("--cert missing.pem", "--cert: "),
    ],
)
def test_wrong_settings_name_the_option(llama: Call, world: World, line: str, option: str) -> None:
    done = llama(f"mitm --listen 127.0.0.1:0 --ca own {line}")
    assert (done.code, done.errors.splitlines()[0][: len(option) + 7]) == (78, f"llama: {option}")


def test_an_older_recording_stays_where_nothing_is_started(llama: Call, world: World) -> None:
    recording("https://a.example/")
    before = Path("in.har").read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = llama(f"mitm --listen 127.0.0.1:{taken.getsockname()[1]} --ca own --har in.har")
    assert (done.code, Path("in.har").read_bytes()) == (1, before)


def test_an_authority_that_others_can_read(llama: Call, world: World) -> None:
    CertificateAuthority.open("own")
    Path("own/ca.key").chmod(0o644)
    done = llama("mitm --ca own")
    assert done.code == 78
    assert done.errors.startswith("llama: --ca: other users can read the key in own/ca.key")


def test_each_example_of_the_help_can_be_read(llama: Call) -> None:
    examples = re.findall(r"^  llama mitm (.*)$", llama("mitm --help").output, re.MULTILINE)
    assert len(examples) >= 4
    for each in examples:
        parsed(*shlex.split(each))


def test_the_help_has_every_option_in_its_section(llama: Call) -> None:
    sections = re.split(r"^([A-Z].*):$", llama("mitm --help").output, flags=re.MULTILINE)
    found = dict(zip(sections[1::2], sections[2::2], strict=True))
    for title, option in (
        ("Listening", "--listen"),
        ("Listening", "--allow-private"),
        ("Interception", "--intercept"),
        ("Upstreams", "--lazy-upstream"),
        ("Recording and changes", "--har"),
        ("Output", "--summary"),
        ("Timeouts", "--idle-timeout"),
        ("Help", "--help"),
    ):
        assert f" {option}" in found[title]


def test_the_table_has_the_latest() -> None:
    table = FlowTable(2)
    assert table.lines(80) == ["nothing was sent through the proxy"]
    for number, status in enumerate((200, 404, 200)):
        table(
            FlowSummary(
                "GET",
                f"https://a.example/page/{number}",
                status=status,
                size=1500 * number,
                seconds=0.25 + number,
            )
        )
    table(FlowSummary("PASS", "b.example:443", error="reset\x1b[2J"))
    assert table.lines(60) == [
        "... 2 earlier",
        "GET  200 3.0 kB 2.2 s https://a.example/page/2",
        "PASS   -    0 B  0 ms b.example:443 (reset?[2J)",
        "4 in all, 2 failed, 4.5 kB",
    ]
    assert table.lines(20)[1] == "GET  200 3.0 kB 2.2 s https://a.example..."
