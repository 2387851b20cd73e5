"""No spelling of a path or a host gets past a rule, in any layer that decides by one; what is sent on stays as sent."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llama import (
    ConfigError,
    Extensions,
    ProtocolError,
    RefusedError,
    Stream,
    Target,
    http,
    mitm,
    serve,
    stack,
    testing,
)
from llama.http import PathParameters, Request, RequestHandler, Response
from llama.http._messages.headers import Headers
from llama.http._messages.normalized_path import other_readings
from llama.layers._hostname import hostname
from llama.mitm import Recorded
from llama.mitm._named_host import named_in
from tests.http.routing.spellings import SPELLINGS, Spelling
from tests.http.upstreams import Upstream, head_of

A = "http://a.example"
ADMIN = "/admin/{rest...}"
SECRET = "SECRET"


def answering(name: str) -> RequestHandler:
    async def answer(request: Request) -> Response:
        return Response(200, body=f"{name} {request.path}")

    return answer


async def ask(exchange: RequestHandler, path: str, host: str = "a.example") -> str:
    """The body of an answer, or its status where it is not 200."""
    request = Request("GET", f"http://{host}/")
    request.path = path
    try:
        response = await exchange(request)
    except ProtocolError as error:
        return str(error.status)
    try:
        body = await response.body.read()
        return body.decode() if response.status == 200 else str(response.status)
    finally:
        await response.aclose()


def expected(spelling: Spelling) -> str:
    return "400" if spelling.decision == "400" else f"{spelling.decision} {spelling.forwarded}"


async def check(exchange: RequestHandler, right: Callable[[Spelling], str], host: str = "a.example") -> None:
    heard = {each.path: await ask(exchange, each.path, host) for each in SPELLINGS}
    assert heard == {each.path: right(each) for each in SPELLINGS}


def test_the_table_is_long_enough_and_has_each_spelling_once() -> None:
    paths = [each.path for each in SPELLINGS]
    assert len(set(paths)) == len(paths) > 200


# routes


async def request_line(stream: Stream) -> None:
    """An upstream that answers with the request line and the name of the proxy that asks."""
    head = (await head_of(stream)).decode("latin-1")
    via = head.partition("Via: 1.1 ")[2].partition("\r\n")[0]
    body = f"{head.partition(' HTTP')[0]} {via}".encode("latin-1")
    await stream.write(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )


async def raw(exchange: RequestHandler, path: str) -> tuple[int, bytes, bytes]:
    """The status, the head and the body that a server sends to a request line with this path."""
    heard = b""
    async with testing.connect(http.server()(exchange)) as stream:
        await stream.write(f"GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n".encode())
        while data := await stream.read():
            heard += data
    head, _, body = heard.partition(b"\r\n\r\n")
    return int(head.split()[1]), head, body


async def test_a_route_sees_every_spelling_and_upstreams_get_the_path_as_sent() -> None:
    upstream = Upstream(request_line)
    async with http.client(upstream) as client:
        site = http.route(
            (ADMIN, http.reverse_proxy(A, client=client, via="admin")),
            default=http.reverse_proxy(A, client=client, via="other"),
        )
        for each in SPELLINGS:
            upstream.targets.clear()
            status, _, body = await raw(site, each.path)
            if each.decision == "400":
                assert (each.path, status, upstream.targets) == (each.path, 400, [])
            else:
                assert body.decode() == f"GET {each.forwarded} {each.decision}"


async def test_a_path_in_absolute_form_is_seen_as_well() -> None:
    site = http.route((ADMIN, answering("admin")), default=answering("other"))
    for target, body in (
        ("http://a.example/x/../admin/x", b"admin /x/../admin/x"),
        ("http://b.example//admin", b"admin //admin"),
        ("HTTP://a.example/%61dmin?x", b"admin /%61dmin?x"),
        ("http://a.example", b"other "),
        ("http://a.example?/admin", b"other ?/admin"),
    ):
        assert (await raw(site, target))[::2] == (200, body)
    for target in (
        "http://a.example/../admin",
        "/x#/admin",
        "http://a.example\\admin",
        "admin/x",
        "*",
        "http:/admin",
    ):
        assert (await raw(site, target))[0] == 400, target


async def test_a_route_sees_every_spelling_over_http2() -> None:
    site = http.route((ADMIN, answering("admin")), default=answering("other"))
    async with serve(stack(http.server(), site), listen="127.0.0.1:0") as served, http.client() as client:
        for each in SPELLINGS:
            request = Request("GET", f"http://{served.address}/")
            request.path = each.path
            request.extensions.set(http.Origin.parse(f"h2c://{served.address}"))
            response = await client(request)
            body = await response.body.read()
            assert response.version == "2"
            right = (400, b"") if each.decision == "400" else (200, expected(each).encode())
            assert (response.status, body if response.status == 200 else b"") == right, each


async def test_a_route_by_method_and_host_sees_every_spelling() -> None:
    site = http.route(
        (http.when(f"GET {ADMIN}", host="*.example"), answering("admin")),
        (http.when(f"POST {ADMIN}"), answering("no")),
        default=answering("other"),
    )
    await check(site, expected, "A.EXAMPLE.:80")


async def test_a_password_for_a_path_is_needed_for_every_spelling() -> None:
    guarded = stack(http.basic_auth({"john": "secret"}), answering("admin"))
    site = http.route((ADMIN, guarded), default=answering("other"))
    await check(site, lambda each: "401" if each.decision == "admin" else expected(each))


async def test_a_redirect_for_a_path_is_to_the_path_as_sent() -> None:
    site = http.route((ADMIN, http.redirect("https")), default=answering("other"))
    for each in SPELLINGS:
        status, head, _ = await raw(site, each.path)
        assert status == {"admin": 308, "other": 200, "400": 400}[each.decision], each
        assert (f"Location: https://a.example{each.path}\r\n".encode() in head + b"\r\n") is (status == 308)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "admin").mkdir()
    for name in ("index.html", "x", "@scope", ".hidden", "x;v=1"):
        (tmp_path / "admin" / name).write_text(SECRET)
    (tmp_path / "x").write_text("public")
    return tmp_path


async def test_files_that_a_route_guards_are_not_served_by_any_spelling(root: Path) -> None:
    files = http.static(root, dotfiles=True)
    site = http.route((ADMIN, answering("admin")), default=files)
    assert await ask(files, "/admin/x") == SECRET
    for each in SPELLINGS:
        heard = await ask(site, each.path)
        assert heard in ("404", "public") if each.decision == "other" else heard == expected(each), each


async def test_parameters_are_those_of_the_normalized_path() -> None:
    async def show(request: Request) -> Response:
        return Response(200, body=repr(dict(request.extensions[PathParameters])))

    site = http.route(("/a/{id}/{rest...}", show), ("/b{n}.json", show), ("/c%20d/%C3%A4/{x}", show))
    for path, parameters in (
        ("/a/1", {"id": "1", "rest": ""}),
        ("//a/%31/x//y%2fz\\%252f", {"id": "1", "rest": "x/y/z/%2f"}),
        ("/a/1;v=1/x;w=2", {"id": "1;v=1", "rest": "x;w=2"}),
        ("/a/%ff/", {"id": "\ufffd", "rest": ""}),
        ("/b7.json;v=1", {"n": "7"}),
        ("/c%20d;v/%c3%a4/x+y", {"x": "x+y"}),
    ):
        assert await ask(site, path) == repr(parameters)


@pytest.mark.parametrize(
    "path", ["/a//b", "/a/../b", "/./a", "/a\\b", "/a/%2e", "/..", "/a%00", "/%zz", "/a/..;/b"]
)
def test_a_route_that_no_normalized_path_matches_is_an_error(path: str) -> None:
    with pytest.raises(ConfigError, match="path"):
        http.route((path, answering("")))
    with pytest.raises(ConfigError, match="path"):
        mitm.map_local({f"{A}{path}": answering("")})


# prefixes


async def test_a_prefix_is_taken_off_every_spelling_and_the_rest_stays_as_sent() -> None:
    for add in ("", "/v2"):
        for exchange in (
            stack(http.rewrite(strip_prefix="/admin", add_prefix=add), answering("in")),
            http.reverse_proxy(A, client=answering("in"), strip_prefix="/admin", add_prefix=add),
        ):
            for each in SPELLINGS:
                heard = await ask(exchange, each.path)
                if each.decision == "admin" and each.rest != "400":
                    assert heard == f"in {add}{each.rest}", each
                else:
                    assert heard in ("400", "404"), each


async def test_no_spelling_leads_out_of_a_prefix_that_is_added() -> None:
    for exchange in (
        stack(http.rewrite(add_prefix="/base"), answering("in")),
        http.reverse_proxy(A, client=answering("in"), add_prefix="/base"),
        http.reverse_proxy(f"{A}/base", client=answering("in")),
    ):
        for each in SPELLINGS:
            heard = await ask(exchange, each.path)
            assert heard in ("400", f"in /base{each.path}")
            if heard != "400":
                readings = other_readings(f"/base{each.path}".partition("?")[0]) or ()
                assert all(one.startswith("/base") for one in readings), each


async def test_an_expression_rewrites_every_spelling_and_leaves_other_paths_as_sent() -> None:
    layer = stack(http.rewrite(r"^/admin(?![\w-])", "/new"), answering("in"))
    for each in SPELLINGS:
        heard = await ask(layer, each.path)
        if each.decision == "admin":
            assert heard.startswith("in /new"), each
        else:
            assert heard.lower() in ("400", f"in {each.path}".lower(), f"in /new{each.path[6:]}".lower()), (
                each
            )
    assert await ask(layer, "/%61dmin/a%20b%2fc%252f?q=%61") == "in /new/a%20b/c%252f?q=%61"


# interception


async def test_a_mapped_url_is_found_by_every_spelling(root: Path) -> None:
    local = stack(mitm.map_local({f"{A}/admin": answering("local")}), answering("other"))
    files = stack(mitm.map_local({f"{A}/admin/": root / "admin"}), answering("other"))
    remote = stack(
        mitm.map_remote({f"{A}/admin": "http://b.example/v2"}, client=answering("b")), answering("other")
    )
    for each in SPELLINGS:
        heard = [await ask(exchange, each.path) for exchange in (local, files, remote)]
        if each.decision == "admin" and each.rest != "400":
            rest = each.rest.removeprefix("/") if each.rest[:2] in ("/", "/?") else each.rest
            assert heard[0] == f"local {each.path}", each
            assert heard[2] in (f"b /v2{rest}", f"b /v2{each.rest}"), each
            assert heard[1] == SECRET or each.rest != "/x", each
        elif each.decision == "other" and not each.sent:
            assert heard == [f"other {each.path}"] * 3, each
        elif each.decision == "other":
            assert not heard[2].startswith("b "), each


async def test_what_follows_a_mapped_url_is_sent_on_and_malformed_paths_pass() -> None:
    layer = mitm.map_remote({f"{A}/api/": "http://b.example/v2/"}, client=answering("b"))
    for path, sent in (
        ("/api/x?y=/..", "b /v2/x?y=/.."),
        ("/%61pi/@scope%2fname", "b /v2/@scope%2fname"),
        ("//api//x", "b /v2/x"),
        ("/x/../api/y", "b /v2/y"),
        ("/api/100%", "b /v2/100%"),
        ("/api", "other /api"),
        ("/api/../x", "400"),
        ("/y/%zz", "other /y/%zz"),
        ("/../y", "other /../y"),
    ):
        assert await ask(stack(layer, answering("other")), path) == sent


async def test_a_mapped_url_with_a_query_is_found_by_every_spelling_of_its_path() -> None:
    layer = mitm.map_local({f"{A}/a?v=1": answering("one"), f"{A}/b/?": answering("b")})
    site = stack(layer, answering("other"))
    for path in ("/a?v=1", "//a?v=1", "/%61?v=1", "/x/../a?v=1"):
        assert await ask(site, path) == f"one {path}"
    for path in ("/a", "/a?v=12", "/a/?v=1", "/a?w=1", "/b?x"):
        assert await ask(site, path) == f"other {path}"
    assert await ask(site, "/b/?x") == "b /b/?x"


def test_a_layer_of_a_script_can_see_every_spelling() -> None:
    for each in SPELLINGS:
        request = Request("GET", "/")
        request.path = each.path
        if each.decision == "400":
            with pytest.raises(ProtocolError) as caught:
                _ = request.normalized_path
            assert caught.value.status == 400
        else:
            first = request.normalized_path.split("/")[1].partition(";")[0]
            assert (first.rstrip(". ") == "admin") is (each.decision == "admin"), each
        assert request.path == each.path


# hosts


HOSTS = (
    "a.example", "A.EXAMPLE", "a.Example", "a.example.", "a.example..", "A.example.:80", "a.example:80", "a.example:",
    "a.example:0080", "user@a.example", "user:password@a.example:80", "%61.example", "%41%2eexample", "a%2Eexample.",
)  # fmt: skip
OTHER_HOSTS = (
    "b.example",
    "a.example.org",
    "xa.example",
    "a.example@b.example",
    "a%252eexample",
    "",
    "[::1]",
)


def test_a_host_has_one_spelling() -> None:
    assert {hostname(each) for each in HOSTS} == {"a.example"}
    for authority, host in (
        ("[::1]:80", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("[2001:DB8::0:1]:8443", "2001:db8::1"),
        ("[::ffff:192.0.2.1]", "192.0.2.1"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("B\xfccher.example", "xn--bcher-kva.example"),
        ("b%C3%BCcher.example:80", "xn--bcher-kva.example"),
        ("", ""),
        ("x" * 300 + ".:80", "x" * 300),
    ):
        assert hostname(authority) == host


@pytest.mark.parametrize("host", [*HOSTS, *OTHER_HOSTS])
async def test_every_layer_by_host_sees_every_spelling(host: str) -> None:
    is_it = host in HOSTS
    named = http.route((http.when("/", host="A.example."), answering("it")), default=answering("other"))
    below = http.route((http.when("/", host="*.EXAMPLE"), answering("it")), default=answering("other"))
    mapped = stack(mitm.map_local({"http://A.example./": answering("it")}), answering("other"))
    remote = stack(mitm.map_remote({A: "http://c.example"}, client=answering("it")), answering("other"))
    assert await ask(named, "/", host) == ("it /" if is_it else "other /")
    assert await ask(below, "/", host) == (
        "it /" if is_it or host.endswith("b.example") or host.startswith("xa") else "other /"
    )
    assert await ask(mapped, "/", host) == ("it /" if is_it else "other /")
    assert await ask(remote, "/", host) == ("it /" if is_it else "other /")


@pytest.mark.parametrize("host", [*HOSTS, *OTHER_HOSTS])
async def test_rules_of_proxies_see_every_spelling_of_a_host(host: str) -> None:
    """A name with a user is no target: it is malformed."""
    is_it = host in HOSTS
    proxy = http.proxy(deny=["A.example."], client=answering("reached"), private=True)
    request = Request("GET", "http://x/")
    request.authority = host
    if is_it or host in ("", "a.example@b.example"):
        with pytest.raises((RefusedError, ProtocolError)):
            await proxy(request)
    else:
        assert (await proxy(request)).status == 200
    name = named_in(f"GET / HTTP/1.1\r\nHost: {host}".encode())
    asked = mitm.ConnectionInfo(Target("192.0.2.1", 80), None, Extensions(), name)
    assert mitm.block("a.example")(asked) == ("block" if is_it else None)
    assert mitm.block("*.example")(asked) == (
        "block" if is_it or host.endswith("b.example") or host.startswith("xa") else None
    )


async def test_a_replay_knows_the_path_as_recorded_and_every_spelling_of_the_host() -> None:
    recorded = Recorded(0.0, "GET", f"{A}/a%2fb", "1.1", Headers(), status=200)
    site = mitm.replay_server([recorded], otherwise=answering("other"))
    for host in HOSTS:
        assert await ask(site, "/a%2fb", host) == ""
        assert await ask(site, "/a/b", host) == "other /a/b"
    for host in (*OTHER_HOSTS, "a.example:81"):
        assert await ask(site, "/a%2fb", host) == "other /a%2fb"


# every composed spelling

_letter = st.sampled_from(["{0}", "%{1:02x}", "%{1:02X}"])
_separator = st.sampled_from(
    ["/", "//", "\\", "%2f", "%2F", "%5c", "%5C", "/./", "/%2e/", "/;/", "/;a=b/", "/.\\"]
)
_detour = st.sampled_from(
    ["", "", "x{0}..{0}", "x{0}y{0}%2e%2E{0}.%2e{0}", ".{0}", "x;v{0}..{0}", "admin{0}..{0}"]
)
_suffix = st.sampled_from(["", "", ";v=1", ".", "%20", "%3bv", ". ;a".replace(" ", "%20"), ";"])


@st.composite
def spelled(draw: st.DrawFn) -> str:
    """A spelling of /admin/x that some server reads as that path."""
    name = "".join(draw(_letter).format(letter, ord(letter)) for letter in "admin")
    separators = [draw(_separator) for _ in range(3)]
    detours = "".join(draw(_detour).format(draw(_separator)) for _ in range(draw(st.integers(0, 3))))
    first = separators[0] if separators[0][0] == "/" else f"/{separators[0]}"
    return f"{first}{detours}{name}{draw(_suffix)}{separators[1]}x"


@given(spelled())
@example("/admin/x")
def test_a_guard_sees_every_composed_spelling(path: str) -> None:
    site = http.route((ADMIN, answering("admin")), default=answering("other"))
    heard = asyncio.run(ask(site, path))
    assert heard == "400" or heard.startswith("admin ")


@given(
    st.lists(
        st.sampled_from(["admin", "x", "..", ".", "/", "\\", "%2f", "%5c", "%2e", ";a", "//", "%61dmin"]),
        max_size=12,
    )
)
def test_what_is_not_for_a_guard_is_read_so_by_no_server(parts: list[str]) -> None:
    site = http.route((ADMIN, answering("admin")), default=answering("other"))
    heard = asyncio.run(ask(site, "/" + "".join(parts)))
    if heard.startswith("other "):
        for each in other_readings(heard.removeprefix("other ")) or ():
            assert each.split("/")[1].partition(";")[0].rstrip(". ") != "admin"
