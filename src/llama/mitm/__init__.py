"""Interception of connections: TLS is terminated, and HTTP and WebSocket pass through layers."""

from llama.mitm._chunks import Chunk, ChunkHook
from llama.mitm._har.document import read_har
from llama.mitm._interception import Interception
from llama.mitm._layers.faults import faults, throttle
from llama.mitm._layers.map import map_local, map_remote
from llama.mitm._lazy_connect import lazy_connect
from llama.mitm._pinning import Pinning, Rejection
from llama.mitm._proxy import proxy
from llama.mitm._recording.record import Sink, record
from llama.mitm._records import Recorded, RecordedBody, RecordedMessage
from llama.mitm._relay import relay
from llama.mitm._replay.replay import ResendResult, replay_client, replay_layer, replay_server
from llama.mitm._rules import Action, ConnectionInfo, Process, Rule, block, intercept, passthrough
from llama.mitm._settings import Options
from llama.tls import CertificateAuthority

__all__ = [
    "Action",
    "CertificateAuthority",
    "Chunk",
    "ChunkHook",
    "ConnectionInfo",
    "Interception",
    "Options",
    "Pinning",
    "Process",
    "Recorded",
    "RecordedBody",
    "RecordedMessage",
    "Rejection",
    "ResendResult",
    "Rule",
    "Sink",
    "block",
    "faults",
    "intercept",
    "lazy_connect",
    "map_local",
    "map_remote",
    "passthrough",
    "proxy",
    "read_har",
    "record",
    "relay",
    "replay_client",
    "replay_layer",
    "replay_server",
    "throttle",
]
