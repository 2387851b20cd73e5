import os
import sys

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture
def plain(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    return pytester


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess("-p", "llama._pytest_plugin", "-p", "no:cacheprovider", *arguments)


def run_apart(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "llama._pytest_plugin", "-p", "no:cacheprovider", *arguments)


def test_a_coroutine_function_is_run_and_gets_its_fixtures(plain: pytest.Pytester) -> None:
    plain.makepyfile(
        """
        import asyncio, pytest
        from llama import Shutdown

        @pytest.fixture
        def number():
            return 7

        @pytest.mark.parametrize("other", [1, 2])
        async def test_adds(number, other):
            await asyncio.sleep(0)
            assert number + other == 8

        class TestClass:
            async def test_method(self, number):
                assert number == 7

        async def test_a_shutdown_is_current():
            task = Shutdown.current().spawn(asyncio.sleep(0))
        """
    )
    run(plain).assert_outcomes(passed=3, failed=1)


def test_an_exception_fails_the_test_and_a_skip_skips_it(plain: pytest.Pytester) -> None:
    plain.makepyfile(
        """
        import pytest
        async def test_fails():
            raise ValueError("as it happened")
        async def test_skips():
            pytest.skip("not here")
        """
    )
    outcome = run(plain)
    outcome.assert_outcomes(failed=1, skipped=1)
    outcome.stdout.fnmatch_lines(["*ValueError: as it happened"])


@pytest.mark.parametrize("how", ["--llama-timeout=0.3", "ini", "marker"])
def test_a_test_that_hangs_fails_with_the_stacks_of_all_tasks(plain: pytest.Pytester, how: str) -> None:
    if how == "ini":
        plain.makeini("[pytest]\nfilterwarnings = error\nllama_timeout = 0.3\n")
    marker = "@pytest.mark.llama_timeout(0.3)" if how == "marker" else ""
    plain.makepyfile(
        f"""
        import asyncio, pytest
        async def inner():
            await asyncio.Event().wait()
        {marker}
        async def test_hangs():
            async with asyncio.TaskGroup() as group:
                group.create_task(inner(), name="the culprit")
                await asyncio.sleep(3600)
        """
    )
    outcome = run(plain, *([how] if how.startswith("--") else []))
    outcome.assert_outcomes(failed=1)
    outcome.stdout.fnmatch_lines(
        ["*the test took longer than 0.3 s*", "*the culprit:*", "*line *in inner*", "*in Event.wait*"]
    )


def test_the_bound_holds_under_a_fake_clock_and_is_not_moved_by_it(plain: pytest.Pytester) -> None:
    plain.makepyfile(
        """
        import asyncio
        from llama import testing
        async def test_days():
            async with testing.clock(autojump=True):
                await asyncio.sleep(86400)
        async def test_hangs():
            async with testing.clock(autojump=True):
                await asyncio.Event().wait()
        """
    )
    run(plain, "--llama-timeout=0.5").assert_outcomes(passed=1, failed=1)


def test_tests_of_another_plugin_are_left_alone(plain: pytest.Pytester) -> None:
    plain.makeconftest(
        """
        import pytest
        def pytest_configure(config):
            config.addinivalue_line("markers", "asyncio: another plugin's")
        def pytest_pyfunc_call(pyfuncitem):
            if pyfuncitem.get_closest_marker("asyncio"):
                pyfuncitem.obj().close()
                return True
        """
    )
    plain.makepyfile(
        """
        import pytest
        @pytest.mark.asyncio
        async def test_theirs():
            raise AssertionError("llama ran it")
        async def test_ours():
            pass
        def test_plain():
            pass
        """
    )
    run(plain).assert_outcomes(passed=3)


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_beside_pytest_asyncio_each_runs_its_own(plain: pytest.Pytester, mode: str) -> None:
    pytest.importorskip("pytest_asyncio")
    plain.makeini(f"[pytest]\nasyncio_mode = {mode}\nasyncio_default_fixture_loop_scope = function\n")
    plain.makepyfile(
        """
        import pytest, pytest_asyncio
        from llama import Shutdown

        @pytest_asyncio.fixture
        async def number():
            yield 7

        @pytest.mark.asyncio
        async def test_theirs(number):
            assert number == 7

        async def test_anyones(request):
            mine = request.config.getini("asyncio_mode") == "strict"
            try:
                Shutdown.current()
            except RuntimeError:
                assert not mine
            else:
                assert mine
        """
    )
    run_apart(plain, "-p", "pytest_asyncio.plugin").assert_outcomes(passed=2)


def test_beside_anyio_each_runs_its_own(plain: pytest.Pytester) -> None:
    pytest.importorskip("anyio")
    plain.makepyfile(
        """
        import anyio, pytest
        from llama import Shutdown

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        async def test_theirs():
            await anyio.sleep(0)
            with pytest.raises(RuntimeError):
                Shutdown.current()

        async def test_ours():
            Shutdown.current()
        """
    )
    run_apart(plain, "-p", "anyio.pytest_plugin").assert_outcomes(passed=2)


def test_a_property_test_may_be_a_coroutine_function(plain: pytest.Pytester) -> None:
    plain.makepyfile(
        """
        import asyncio
        from hypothesis import given, settings, strategies as st

        @settings(max_examples=20, database=None, deadline=None)
        @given(st.integers())
        async def test_holds(number):
            await asyncio.sleep(0)
            assert number == number

        @settings(max_examples=100, database=None, deadline=None)
        @given(st.integers())
        async def test_does_not_hold(number):
            await asyncio.sleep(0)
            assert number < 100
        """
    )
    outcome = run(plain)
    outcome.assert_outcomes(passed=1, failed=1)
    outcome.stdout.fnmatch_lines(["*number=100*"])
