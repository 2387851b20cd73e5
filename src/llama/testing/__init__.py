"""Tools for testing handlers, layers and streams without sockets and sleeps."""

from typing import TYPE_CHECKING

from llama._lazy_import import lazy_names
from llama.testing._client import TestClient, client
from llama.testing._clock import Clock, clock
from llama.testing._connect import connect
from llama.testing._faulty import FaultyStream, faulty
from llama.testing._memory import MemoryStream, lockstep_pair, memory_pair
from llama.testing._stream_suite.helpers import MakePair, StreamCase
from llama.testing._stream_suite.suite import check_stream, stream_cases
from llama.testing._transcript import run_transcript

__all__ = [
    "Cassette",
    "Clock",
    "FaultyStream",
    "MakePair",
    "MemoryStream",
    "RecordingProxy",
    "Redaction",
    "StreamCase",
    "TestClient",
    "check_stream",
    "client",
    "clock",
    "connect",
    "faulty",
    "lockstep_pair",
    "memory_pair",
    "run_transcript",
    "stream_cases",
]

if TYPE_CHECKING:
    from llama.testing._fixtures.cassette import Cassette
    from llama.testing._fixtures.recording_proxy import RecordingProxy
    from llama.testing._fixtures.redaction import Redaction
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        __all__,
        {
            "Cassette": "llama.testing._fixtures.cassette",
            "RecordingProxy": "llama.testing._fixtures.recording_proxy",
            "Redaction": "llama.testing._fixtures.redaction",
        },
    )
