"""The same hook for mitmproxy, which takes it as a script."""

from typing import Protocol


class Answer(Protocol):
    """What is used of mitmproxy's response."""

    headers: dict[str, str]


class Flow(Protocol):
    """What is used of its flow."""

    response: Answer


def response(flow: Flow) -> None:
    """Called for each response."""
    flow.response.headers["X-Seen-By"] = "the hook"
