"""The states of a stream and their transitions (RFC 9113 section 5.1).

Push is disabled on both sides, so the reserved states do not exist. There are three closed states, because the way
in which a stream was closed decides what a late frame means.
"""

from __future__ import annotations

IDLE, OPEN, HALF_CLOSED_LOCAL, HALF_CLOSED_REMOTE, CLOSED, RESET_BY_US, RESET_BY_PEER = range(7)
STATE_NAMES = (
    "idle", "open", "half-closed (local)", "half-closed (remote)", "closed", "reset by us", "reset by the peer",
)  # fmt: skip

# Outcomes that are not states: ignore the frame, a stream error, two connection errors, or misuse by this side.
IGNORED, STREAM_ERROR, CLOSED_ERROR, IDLE_ERROR, LOCAL_ERROR = -1, -2, -3, -4, -5

_OUTCOMES = {
    "open": OPEN,
    "hl": HALF_CLOSED_LOCAL,
    "hr": HALF_CLOSED_REMOTE,
    "closed": CLOSED,
    "ours": RESET_BY_US,
    "theirs": RESET_BY_PEER,
    "-": IGNORED,
    "stream!": STREAM_ERROR,  # RST_STREAM with STREAM_CLOSED
    "closed!": CLOSED_ERROR,  # GOAWAY with STREAM_CLOSED
    "idle!": IDLE_ERROR,  # GOAWAY with PROTOCOL_ERROR
    "misuse": LOCAL_ERROR,
}

_TABLE = """
                    idle    open    hl      hr      closed  ours    theirs
recv HEADERS        open    open    hl      stream! closed! -       stream!
recv HEADERS end    hr      hr      closed  stream! closed! -       stream!
recv DATA           idle!   open    hl      stream! closed! -       stream!
recv DATA end       idle!   hr      closed  stream! closed! -       stream!
recv RST_STREAM     idle!   theirs  theirs  theirs  -       -       -
recv WINDOW_UPDATE  idle!   open    hl      hr      -       -       -
send HEADERS        open    open    misuse  hr      misuse  misuse  misuse
send HEADERS end    hl      hl      misuse  closed  misuse  misuse  misuse
send DATA           misuse  open    misuse  hr      misuse  misuse  misuse
send DATA end       misuse  hl      misuse  closed  misuse  misuse  misuse
send RST_STREAM     misuse  ours    ours    ours    -       -       -
"""


def _read() -> dict[str, tuple[int, ...]]:
    rows = _TABLE.strip("\n").split("\n")[1:]
    return {row[:20].strip(): tuple(_OUTCOMES[word] for word in row[20:].split()) for row in rows}


TABLE = _read()
"""For each event, the outcome in each state: the next state, or one of the negative outcomes."""

RECV_HEADERS = (TABLE["recv HEADERS"], TABLE["recv HEADERS end"])
RECV_DATA = (TABLE["recv DATA"], TABLE["recv DATA end"])
RECV_RST_STREAM = TABLE["recv RST_STREAM"]
RECV_WINDOW_UPDATE = TABLE["recv WINDOW_UPDATE"]
SEND_HEADERS = (TABLE["send HEADERS"], TABLE["send HEADERS end"])
SEND_DATA = (TABLE["send DATA"], TABLE["send DATA end"])
SEND_RST_STREAM = TABLE["send RST_STREAM"]
