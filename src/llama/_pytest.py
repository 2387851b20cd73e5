"""The pytest plugin: runs coroutine test functions, with nothing to mark and no other plugin."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import wraps
from types import CodeType, FrameType
from typing import Any

import pytest

from llama._shutdown import Shutdown

TIMEOUT = 60.0
_OTHERS = ("asyncio", "anyio", "trio", "curio", "tornado", "twisted")


def pytest_addoption(parser: pytest.Parser) -> None:
    help = "seconds after which a coroutine test fails with the stacks of all tasks; 0: never (llama)"
    parser.getgroup("llama").addoption(
        "--llama-timeout", type=float, default=None, metavar="SECONDS", help=help
    )
    parser.addini("llama_timeout", help, default=str(TIMEOUT))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "llama_timeout(seconds): the bound of one coroutine test, 0 for none")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test in a loop of its own, within a Shutdown, unless another plugin claims it."""
    if (
        any(pyfuncitem.get_closest_marker(name) for name in _OTHERS)
        or "anyio_backend" in pyfuncitem.fixturenames
    ):
        return None
    function = pyfuncitem.obj
    property_test = getattr(function, "hypothesis", None)
    if property_test is not None and inspect.iscoroutinefunction(property_test.inner_test):
        property_test.inner_test = _as_function(property_test.inner_test, _bound(pyfuncitem))
        return None
    if not inspect.iscoroutinefunction(function):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    run_bounded(lambda: function(**arguments), _bound(pyfuncitem))
    return True


def _as_function(test: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., None]:
    @wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        run_bounded(lambda: test(*args, **kwargs), seconds)

    return run


def _bound(item: pytest.Function) -> float:
    marker = item.get_closest_marker("llama_timeout")
    if marker is not None:
        return float(marker.args[0])
    option = item.config.getoption("--llama-timeout")
    return float(item.config.getini("llama_timeout") if option is None else option)


def run_bounded(test: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Run a coroutine function in a new loop, within a Shutdown; fail when it takes longer; 0: no bound."""
    with asyncio.Runner() as runner:
        stacks: list[str] = []
        try:
            runner.run(_within(test, seconds, stacks))
        except asyncio.CancelledError:
            if not stacks:
                raise
        if stacks:
            pytest.fail(f"the test took longer than {seconds:g} s\n\n" + stacks[0], pytrace=False)


async def _within(test: Callable[[], Awaitable[None]], seconds: float, stacks: list[str]) -> None:
    with _watch(seconds, stacks):
        async with Shutdown():
            await test()


@contextmanager
def _watch(seconds: float, stacks: list[str]) -> Generator[None]:
    """Cancel the running task after so many seconds of real time, which a fake clock does not move."""
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
        frame: FrameType | None = _part(waiting, "frame")
        code: CodeType | None = _part(waiting, "code")
        if frame is not None and code is not None:
            lines.append(f'  File "{code.co_filename}", line {frame.f_lineno}, in {code.co_qualname}')
        inner = _part(waiting, "await") or _part(waiting, "yieldfrom")
        if inner is None and frame is None:
            lines.append(f"  waiting for {waiting!r}")
        waiting = inner
    return "\n".join(lines)


def _part(awaitable: object, name: str) -> Any:
    """An attribute of a coroutine, a generator or an asynchronous generator's step, by its common name."""
    return next(
        (found for kind in ("cr", "gi", "ag") if (found := getattr(awaitable, f"{kind}_{name}", None))), None
    )
