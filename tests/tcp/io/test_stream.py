import asyncio
from collections.abc import Callable

import pytest

from llama import testing
from tests.tcp.io.loops import LOOPS
from tests.tcp.socket_pairs import over_socketpair, over_tcp

Loop = Callable[[], asyncio.AbstractEventLoop]


def run(case: testing.StreamCase, kind: testing.MakePair, loop: Loop) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await case(kind)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(bounded())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("case", testing.stream_cases())
def test_a_stream_over_tcp_passes_the_stream_checks(case: testing.StreamCase, loop: Loop) -> None:
    run(case, over_tcp, loop)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("case", testing.stream_cases(breaks=False))
def test_a_stream_over_a_unix_socket_passes_the_stream_checks(case: testing.StreamCase, loop: Loop) -> None:
    run(case, over_socketpair, loop)
