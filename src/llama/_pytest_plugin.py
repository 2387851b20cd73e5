"""The pytest plugin: runs coroutine test functions without a marker, and provides fixtures."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import wraps
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import pytest

from llama._core.shutdown import Shutdown

if TYPE_CHECKING:
    from llama.testing import Cassette, RecordingProxy, Redaction
    from llama.testing._fixtures.recording_proxy import Authority

TIMEOUT = 60.0
_FIXTURES = ("llama_proxy", "cassette")
_MARKERS = (
    "llama_timeout(seconds): the timeout of one coroutine test, 0 for none",
    "llama_proxy(layers, upstream_ca, record_bodies, connect): the settings of the llama_proxy fixture",
    "cassette(name, mode, match, redact, ignore, repeat, most): record once, then replay without the network",
)
_CASSETTE: pytest.StashKey[Cassette] = pytest.StashKey()
_OTHER_PLUGINS = ("asyncio", "anyio", "trio", "curio", "tornado", "twisted")


def pytest_addoption(parser: pytest.Parser) -> None:
    help = "seconds after which a coroutine test fails with the stacks of all tasks; 0: never (llama)"
    parser.getgroup("llama").addoption(
        "--llama-timeout", type=float, default=None, metavar="SECONDS", help=help
    )
    parser.addini("llama_timeout", help, default=str(TIMEOUT))
    help = "once: record if the file is missing, else replay; none: replay; new: add missing exchanges; all: rerecord"
    parser.getgroup("llama").addoption(
        "--cassette", choices=("once", "none", "new", "all"), default=None, help=f"cassettes: {help} (llama)"
    )
    parser.addini("cassette", help, default="once")


def pytest_configure(config: pytest.Config) -> None:
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Request a fixture for a test that has the marker of the same name."""
    if isinstance(item, pytest.Function):
        for name in _FIXTURES:
            if name not in item.fixturenames and item.get_closest_marker(name) is not None:
                item.fixturenames.insert(_run_first(item), name)


def _run_first(item: pytest.Function) -> int:
    """Return the index of the first function-scoped fixture, after those shared with other tests."""
    known = item._fixtureinfo.name2fixturedefs
    for number, name in enumerate(item.fixturenames):
        if name not in known or known[name][-1].scope == "function":
            return number
    return len(item.fixturenames)


@pytest.fixture(scope="session")
def _llama_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    from llama.testing._fixtures.recording_proxy import Authority

    return Authority.make(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def llama_proxy(request: pytest.FixtureRequest, _llama_authority: Authority) -> Generator[RecordingProxy]:
    """An intercepting proxy that records the test's HTTP exchanges, a `llama.testing.RecordingProxy`.

    Clients in the test, and programs that it starts, find the proxy through environment variables. It relays
    HTTP/1.1, HTTP/2 and WebSocket, with or without TLS. `@pytest.mark.llama_proxy(...)` takes `layers`, as
    `mitm.proxy` does, `upstream_ca`, the certificate authorities of upstream servers (False: no verification),
    `record_bodies`, the most bytes kept of each body (1 MiB; False: none), and `connect`, the upstream connector.

        def test_pays(llama_proxy):
            urlopen("https://pay.example/v1/charges")
            assert llama_proxy.exchanges[0].status == 200
    """
    from llama.testing._fixtures.fixtures import proxy_for

    if "cassette" in request.fixturenames:
        cassette: Cassette = request.getfixturevalue("cassette")
        yield cassette.proxy
        return
    with proxy_for(request, _llama_authority) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def cassette_redaction() -> Redaction:
    """The default redaction rules of cassettes; override this fixture to change them."""
    from llama.testing._fixtures.redaction import Redaction

    return Redaction()


@pytest.fixture
def cassette(
    request: pytest.FixtureRequest, _llama_authority: Authority, cassette_redaction: Redaction
) -> Generator[Cassette]:
    """Records the test's HTTP exchanges once and replays them afterwards, a `llama.testing.Cassette`.

    The file is `cassettes/MODULE/TEST.har` beside the test module, HAR 1.2, written after the test has passed.
    During replay a request without a recording gets 502 and fails the test with a message that shows the closest
    recording. `--cassette=once|none|new|all` sets the mode.

    `@pytest.mark.cassette(...)` takes `name`, the file name; `mode`; `match`, the parts of a request to compare
    (`method`, `url`; `scheme`, `host`, `path`, `query`, `body`); `redact`, a `llama.testing.Redaction` with the
    secrets to remove; `ignore`, hosts that bypass the cassette, such as `localhost`; `repeat`, which replays the
    last response to a request any number of times; and `most`, the largest body in bytes (16 MiB).

        @pytest.mark.cassette
        def test_pays():
            assert urlopen("https://pay.example/v1/charges").status == 200
    """
    from llama.testing._fixtures.fixtures import cassette_for

    with cassette_for(request, _llama_authority, cassette_redaction) as made:
        request.node.stash[_CASSETTE] = made
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Fail a test that sent a request without a recording, whatever it did with the response."""
    try:
        yield
    except BaseException:
        if (made := item.stash.get(_CASSETTE, None)) is not None:
            _add_sections(item, made)
        raise
    if (made := item.stash.get(_CASSETTE, None)) is not None:
        made.passed = True
        if news := made.summary():
            pytest.fail(news, pytrace=False)


def _add_sections(item: pytest.Item, cassette: Cassette) -> None:
    said = "\n".join(filter(None, [cassette.summary(), *cassette.unmatched()]))
    if said:
        item.add_report_section("call", "cassette", said)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test in a new loop, within a Shutdown, unless another plugin claims it."""
    if (
        any(pyfuncitem.get_closest_marker(name) for name in _OTHER_PLUGINS)
        or "anyio_backend" in pyfuncitem.fixturenames
    ):
        return None
    function = pyfuncitem.obj
    property_test = getattr(function, "hypothesis", None)
    if property_test is not None and inspect.iscoroutinefunction(property_test.inner_test):
        property_test.inner_test = _as_function(property_test.inner_test, _timeout_of(pyfuncitem))
        return None
    if not inspect.iscoroutinefunction(function):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    run_with_timeout(lambda: function(**arguments), _timeout_of(pyfuncitem))
    return True


def _as_function(test: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., None]:
    @wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        run_with_timeout(lambda: test(*args, **kwargs), seconds)

    return run


def _timeout_of(item: pytest.Function) -> float:
    marker = item.get_closest_marker("llama_timeout")
    if marker is not None:
        return float(marker.args[0])
    option = item.config.getoption("--llama-timeout")
    return float(item.config.getini("llama_timeout") if option is None else option)


def run_with_timeout(test: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Run a coroutine function in a new loop, within a Shutdown; fail after `seconds` (0: no timeout)."""
    with asyncio.Runner() as runner:
        stacks: list[str] = []
        try:
            runner.run(_collect_stacks(test, seconds, stacks))
        except asyncio.CancelledError:
            if not stacks:
                raise
        if stacks:
            pytest.fail(f"the test took longer than {seconds:g} s\n\n" + stacks[0], pytrace=False)


async def _collect_stacks(test: Callable[[], Awaitable[None]], seconds: float, stacks: list[str]) -> None:
    with _watch(seconds, stacks):
        async with Shutdown():
            await test()


@contextmanager
def _watch(seconds: float, stacks: list[str]) -> Generator[None]:
    """Cancel the running task after `seconds` of real time, which a fake clock does not affect."""
    loop, task, over = asyncio.get_running_loop(), asyncio.current_task(), False
    if not seconds or task is None:
        yield
        return

    def expire() -> None:
        if over:
            return
        stacks.append("\n".join(_describe(each) for each in asyncio.all_tasks(loop)))
        task.cancel()

    timer = threading.Timer(seconds, loop.call_soon_threadsafe, (expire,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        over = True
        timer.cancel()
        timer.join()


def _describe(task: asyncio.Task[Any]) -> str:
    lines = [f"{task.get_name()}:"]
    waiting: object = task.get_coro()
    while waiting is not None:
        frame: FrameType | None = _describe_awaitable(waiting, "frame")
        code: CodeType | None = _describe_awaitable(waiting, "code")
        if frame is not None and code is not None:
            lines.append(f'  File "{code.co_filename}", line {frame.f_lineno}, in {code.co_qualname}')
        inner = _describe_awaitable(waiting, "await") or _describe_awaitable(waiting, "yieldfrom")
        if inner is None and frame is None:
            lines.append(f"  waiting for {waiting!r}")
        waiting = inner
    return "\n".join(lines)


def _describe_awaitable(awaitable: object, name: str) -> Any:
    """Return an attribute of a coroutine, generator or async generator step, without its type's prefix."""
    return next(
        (found for kind in ("cr", "gi", "ag") if (found := getattr(awaitable, f"{kind}_{name}", None))), None
    )
