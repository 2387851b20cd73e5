from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from llama import testing
from llama._stream import Stream


@asynccontextmanager
async def memory() -> AsyncGenerator[tuple[Stream, Stream]]:
    yield testing.memory_pair()


@pytest.mark.parametrize("case", testing.stream_cases(bulk=1_000_000))
async def test_a_memory_stream_passes(case: testing.StreamCase) -> None:
    await case(memory)
