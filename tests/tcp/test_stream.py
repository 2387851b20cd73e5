import pytest

from llama import testing
from tests.tcp.pairs import over_socketpair, over_tcp


@pytest.mark.parametrize("case", testing.stream_cases())
async def test_a_stream_over_tcp_passes(case: testing.StreamCase) -> None:
    await case(over_tcp)


@pytest.mark.parametrize("case", testing.stream_cases(breaks=False))
async def test_a_stream_over_a_unix_socket_passes(case: testing.StreamCase) -> None:
    await case(over_socketpair)
