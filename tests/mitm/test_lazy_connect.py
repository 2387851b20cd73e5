"""Late streams are streams like any other."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from llama import Stream, Target, testing
from llama.mitm._lazy_connect import LazyStream
from tests.tcp.socket_pairs import over_tcp


@asynccontextmanager
async def late() -> AsyncGenerator[tuple[Stream, Stream]]:
    """Two late streams over TCP."""
    async with over_tcp() as (one, two):

        async def connect(target: Target) -> Stream:
            return one if target.port == 1 else two

        pair = LazyStream(connect, Target("a", 1)), LazyStream(connect, Target("a", 2))
        for each in pair:
            await each.open()
        yield pair


@pytest.mark.parametrize("case", testing.stream_cases())
async def test_a_late_stream_passes_the_conformance_suite(case: testing.StreamCase) -> None:
    await case(late)
