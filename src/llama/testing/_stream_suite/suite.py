"""The conformance suite for Streams."""

from __future__ import annotations

from llama.testing._stream_suite import concurrent_cases, nonblocking_cases, sequential_cases
from llama.testing._stream_suite.helpers import BULK, MakePair, StreamCase


def stream_cases(*, bulk: int = BULK, breaks: bool = True) -> list[StreamCase]:
    """Return the conformance cases of Stream, for `@pytest.mark.parametrize("case", testing.stream_cases())`.

    Await each case with a function that opens a pair of connected streams as an async context manager. `bulk` is a
    number of bytes larger than the transport's buffers; a transport in memory needs far fewer. Use `breaks=False` for
    a transport that cannot distinguish a reset from the end of stream, such as Unix sockets.
    """
    broken = sequential_cases.BREAKS if breaks else ()
    functions = (*sequential_cases.CASES, *broken, *concurrent_cases.CASES, *nonblocking_cases.CASES)
    return [StreamCase(function, bulk) for function in functions]


async def check_stream(make_pair: MakePair, *, bulk: int = BULK, breaks: bool = True) -> None:
    """Run all of `stream_cases`; raises AssertionError that names the case."""
    for case in stream_cases(bulk=bulk, breaks=breaks):
        try:
            await case(make_pair)
        except Exception as error:
            error.add_note(f"in the case {case.__name__}")
            raise
