"""Tools for testing handlers, layers and streams without sockets and sleeps."""

from typing import TYPE_CHECKING

from llama._later import later
from llama.testing._client import TestClient, client
from llama.testing._clock import Clock, clock
from llama.testing._conformance import check_stream, stream_cases
from llama.testing._connect import connect
from llama.testing._faulty import FaultyStream, faulty
from llama.testing._helpers import MakePair, StreamCase
from llama.testing._memory import MemoryStream, lockstep, memory_pair
from llama.testing._transcript import play

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
    "lockstep",
    "memory_pair",
    "play",
    "stream_cases",
]

if TYPE_CHECKING:
    from llama.testing._plugin._cassette import Cassette
    from llama.testing._plugin._proxy import RecordingProxy
    from llama.testing._plugin._redaction import Redaction
else:
    __getattr__, __dir__ = later(
        __name__,
        __all__,
        {
            "Cassette": "llama.testing._plugin._cassette",
            "RecordingProxy": "llama.testing._plugin._proxy",
            "Redaction": "llama.testing._plugin._redaction",
        },
    )
