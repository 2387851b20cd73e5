"""Looking into connections, with the consent of whoever makes them: TLS ended, HTTP through layers."""

from llama.mitm._chunks import Chunk, ChunkHook
from llama.mitm._interception import Interception
from llama.mitm._pinning import Pinning, Rejection
from llama.mitm._proxy import proxy
from llama.mitm._relay import relay
from llama.mitm._rules import Action, Asked, Process, Rule, block, intercept, passthrough
from llama.mitm._settings import Options
from llama.tls import CertificateAuthority

__all__ = [
    "Action",
    "Asked",
    "CertificateAuthority",
    "Chunk",
    "ChunkHook",
    "Interception",
    "Options",
    "Pinning",
    "Process",
    "Rejection",
    "Rule",
    "block",
    "intercept",
    "passthrough",
    "proxy",
    "relay",
]
