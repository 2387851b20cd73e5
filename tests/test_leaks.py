import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests import leaks

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.house


def test_an_open_socket_is_named() -> None:
    before = leaks.everything()
    with socket.socket() as sock:
        assert f"descriptor {sock.fileno()} (socket:" in str(leaks.left_since(before, patience=0))
    assert leaks.left_since(before) == []


def test_a_socket_in_the_place_of_another_is_seen() -> None:
    first = socket.socket()
    before, number = leaks.everything(), first.fileno()
    first.close()
    with socket.socket() as second:
        assert second.fileno() == number
        assert f"descriptor {number} " in str(leaks.left_since(before, patience=0))


def test_a_pipe_has_two_ends() -> None:
    before = leaks.everything()
    ends = os.pipe()
    assert len(leaks.left_since(before, patience=0)) == 2
    for end in ends:
        os.close(end)


def test_what_only_garbage_holds_is_collected_first() -> None:
    before = leaks.everything()
    circle: list[object] = [_Holder()]
    circle.append(circle)
    del circle
    assert leaks.left_since(before, patience=0) == []


class _Holder:
    def __init__(self) -> None:
        self.number = os.open(os.devnull, os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.number)


def test_a_thread_is_waited_for_and_then_named() -> None:
    before, stop = leaks.everything(), threading.Event()
    thread = threading.Thread(target=stop.wait, name="slow")
    thread.start()
    assert "thread slow" in str(leaks.left_since(before, patience=0))
    stop.set()
    assert leaks.left_since(before) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_child_is_there_until_it_is_reaped() -> None:
    before = leaks.everything()
    child = subprocess.Popen([sys.executable, "-c", ""])
    assert f"child process {child.pid}" in leaks.left_since(before, patience=0)
    child.wait()
    assert leaks.left_since(before) == []


def test_a_task_that_the_loop_had_to_cancel_is_named() -> None:
    async def forgetful() -> None:
        asyncio.get_running_loop().create_task(asyncio.sleep(3600), name="forgotten")
        await asyncio.sleep(0)

    with leaks.complaints() as found:
        asyncio.run(forgetful())
    assert len(found) == 1 and "forgotten" in found[0]


def test_an_exception_nobody_saw_is_named() -> None:
    async def fails() -> None:
        raise OSError("unseen")

    async def careless() -> None:
        asyncio.get_running_loop().create_task(fails())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with leaks.complaints() as found:
        asyncio.run(careless())
        leaks.left_since(frozenset(), patience=0)
    assert any("never retrieved" in line for line in found)


def test_the_check_is_cheap() -> None:
    started = time.perf_counter()
    for _ in range(100):
        assert leaks.left_since(leaks.everything()) == []
    assert time.perf_counter() - started < 1.0


def test_a_leaking_test_fails(pytester: pytest.Pytester) -> None:
    here = Path(__file__).parent
    pytester.makeconftest((here / "conftest.py").read_text(encoding="utf-8"))
    pytester.mkpydir("tests").joinpath("leaks.py").write_text((here / "leaks.py").read_text(encoding="utf-8"))
    pytester.makepyfile(
        """
        import socket
        kept = []
        def test_leaks():
            kept.append(socket.socket())
        def test_does_not():
            assert kept
        """
    )
    outcome = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--rootdir", str(pytester.path))
    outcome.assert_outcomes(passed=2, errors=1)
    outcome.stdout.fnmatch_lines(["*the test left behind:*", "*descriptor * (socket:*"])
