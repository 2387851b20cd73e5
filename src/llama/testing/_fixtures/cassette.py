"""Exchanges that are recorded once and replayed without the network: the fixture `cassette`."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from llama._core.errors import ConfigError
from llama.http import Request
from llama.mitm import Recorded, RecordedBody, read_har
from llama.mitm._har.document import to_entry
from llama.mitm._har.file import document
from llama.mitm._recording.exchange_recorder import BodyStore, new_record, whole
from llama.mitm._records import GRPC
from llama.mitm._replay.replay import find_by_prefix
from llama.mitm._replay.websocket import is_websocket
from llama.tcp._policy.target_patterns import TargetPatterns
from llama.testing._fixtures.matching import PARTS, Part, TapeEntry, explain, find, parts_of
from llama.testing._fixtures.recording_proxy import RecordingProxy
from llama.testing._fixtures.redaction import Redaction

Mode: TypeAlias = Literal["once", "none", "new", "all"]
MODES: tuple[Mode, ...] = get_args(Mode)
_INSTEAD = "--cassette=new adds what is missing to the file, --cassette=all records all of it anew"


@dataclass(frozen=True, slots=True)
class CassetteOptions:
    """The options of the marker `cassette`."""

    name: str | None = None
    mode: Mode | None = None
    match: Collection[Part] = ("method", "url")
    redact: Redaction | None = None
    ignore: Sequence[str] = ()
    repeat: bool = False
    max_body: int = 16 << 20

    def __post_init__(self) -> None:
        if self.mode is not None and self.mode not in MODES:
            raise ConfigError(f"cassette(mode={self.mode!r}): expected one of {', '.join(MODES)}")
        if isinstance(self.match, str) or not all(part in PARTS for part in self.match):
            raise ConfigError(f"cassette(match={self.match!r}): expected a list of {', '.join(PARTS)}")
        if isinstance(self.ignore, str):
            raise ConfigError(f"cassette(ignore={self.ignore!r}): expected a list of hosts")


@dataclass(slots=True, eq=False)
class Cassette:
    """The value of the fixture `cassette`: the exchanges of one test, recorded once and then replayed."""

    path: Path
    """The HAR file."""
    mode: Mode
    """`once`: replay if the file exists, else record. `none`: replay only. `new`: replay, and record missing
    exchanges. `all`: record everything again."""
    options: CassetteOptions
    redaction: Redaction
    """The redaction rules."""
    name: str = ""
    problems: list[str] = field(default_factory=list[str])
    """The errors that fail the test: requests that were not found, and exchanges that cannot be recorded."""
    notes: list[str] = field(default_factory=list[str])
    """Notes for the report."""
    records: bool = field(init=False)
    """Whether requests that are not found go to the network and are recorded."""
    passed: bool = False
    proxy: RecordingProxy = field(init=False)
    """The proxy that replays and records."""
    _tape: list[TapeEntry] = field(init=False, default_factory=list[TapeEntry])
    _fresh: list[Recorded] = field(init=False, default_factory=list[Recorded])
    _ignored: TargetPatterns | None = field(init=False)
    _told: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        there = self.path.exists()
        self.records = self.mode in ("new", "all") or (self.mode == "once" and not there)
        self.name = self.name or str(self.path)
        self._ignored = TargetPatterns(self.options.ignore) if self.options.ignore else None
        if there and self.mode != "all":
            self._tape = [TapeEntry.of(each) for each in read_har(self.path)]

    def __repr__(self) -> str:
        return f"<cassette {self.name}, {self.mode}>"

    @property
    def exchanges(self) -> list[Recorded]:
        """The exchanges that the file had when the test began."""
        return [each.recorded for each in self._tape]

    @property
    def unused(self) -> list[Recorded]:
        """The recorded exchanges that the test has not requested."""
        return [each.recorded for each in self._tape if not each.used]

    # called by its layer

    def ignores(self, host: str, port: int) -> bool:
        """Return whether the cassette ignores a host."""
        return self._ignored is not None and self._ignored.matches(host, port)

    @property
    def replays(self) -> bool:
        """Return whether the cassette may contain a request, or has to."""
        return bool(self._tape) or not self.records

    async def read(self, request: Request) -> Recorded:
        """Read the body of a request and return the request as it would be recorded."""
        asked = new_record(request)
        if request.body.length != 0 and not request.upgrade_protocol and self._needs_body(asked):
            most = self.options.max_body
            data = await request.body.read(most)
            asked.body = whole(BodyStore(most, None, None).sink(request.headers), data)
            request.body = data
        cleaned = self.redaction.clean([asked])
        return cleaned[0] if cleaned else asked

    def _needs_body(self, asked: Recorded) -> bool:
        """Whether the request is to be read before it is answered."""
        alike = self._alike(asked)
        if self.streams(asked):
            return False
        return bool(alike) or not (self.records or asked.headers.get("content-type", "").startswith(GRPC))

    def _alike(self, asked: Recorded) -> list[TapeEntry]:
        """The entries that match but for the body."""
        parts = parts_of(asked)
        match: list[Part] = [each for each in self.options.match if each != "body"]
        return [each for each in self._tape if all(each.parts[part] == parts[part] for part in match)]

    async def find_stream(self, request: Request, asked: Recorded) -> tuple[Recorded | None, bytes]:
        """The exchange that a request is whose body may not end before its response begins, and the data read."""
        alike = self._alike(asked)
        found = [each.recorded for each in alike if not each.used]
        if not found and self.options.repeat:
            found = [each.recorded for each in alike[-1:]]
        data = b""
        if "body" in self.options.match:
            taken, data = await find_by_prefix(request, found, self.options.max_body)
        else:
            taken = found[0] if found else None
        for each in alike:
            each.used = each.used or each.recorded is taken
        return taken, data

    def streams(self, asked: Recorded) -> bool:
        """Whether the response of such a request began before the request had ended."""
        return any(each.recorded.interleaving for each in self._alike(asked))

    def length_of_head(self, found: Recorded) -> Recorded | None:
        """The exchange by GET whose length a response to HEAD has."""
        if found.method != "HEAD":
            return None
        gets = (each.recorded for each in self._tape if each.recorded.method == "GET")
        return next((each for each in gets if each.url == found.url), None)

    def find(self, asked: Recorded) -> Recorded | None:
        """Find the exchange of a request and mark it as used."""
        taped = find(self._tape, parts_of(asked), self.options.match, repeat=self.options.repeat)
        if taped is None:
            return None
        taped.used = True
        return taped.recorded

    def record_miss(self, asked: Recorded) -> str:
        """Report a request that is not in the cassette; return the message."""
        why = explain(self._tape, asked, self.options.match) if self._tape else self._no_file()
        told = f"{asked.method} {asked.url} is not in the cassette {self.name}.\n{why}\n({_INSTEAD})"
        self.problems.append(told)
        return told

    def _no_file(self) -> str:
        return "The cassette is empty." if self.path.exists() else "The file does not exist."

    def unexpected(self, asked: Recorded, said: str | bytes, expected: str | bytes | None) -> None:
        """Report a WebSocket message that differs from the recorded one."""
        there = "nothing more" if expected is None else repr(expected)
        self.problems.append(
            f"The WebSocket {asked.url} differs from the cassette {self.name}:\n"
            f"  - {there}\n  + {said!r}\n({_INSTEAD})"
        )

    def dialled(self, target: str) -> None:
        """Report a connection that is not HTTP."""
        self.problems.append(f"a connection to {target} cannot be replayed: {self.name} holds HTTP only")

    def keep(self, recorded: Recorded) -> None:
        """Add a recorded exchange."""
        cleaned = self.redaction.clean([replace(recorded, body=RecordedBody(), response_body=RecordedBody())])
        what = f"{recorded.method} {cleaned[0].url if cleaned else '(left out)'}"
        most = self.options.max_body
        if not recorded.status or recorded.failed:
            self.notes.append(f"not recorded: {what}: {recorded.error}")
        elif recorded.body.size > most or recorded.response_body.size > most or recorded.dropped_messages:
            self.problems.append(f"{what} cannot be recorded: it has more than max_body={most} bytes")
        elif recorded.status == 101 and not is_websocket(recorded):
            self.problems.append(f"{what} cannot be recorded: it switched to a protocol other than WebSocket")
        else:
            self._fresh.append(recorded)

    # at the end of the test

    def summary(self) -> str:
        """Return the problems that were not reported yet."""
        told = self.problems[self._told :]
        self._told += len(told)
        return "\n\n".join(told)

    def unmatched(self) -> list[str]:
        """Return the notes for a failed test."""
        if not self._fresh:
            return self.notes
        return [*self.notes, f"{self.name} was not written, because the test failed"]

    def write(self) -> bool:
        """Write the file atomically if there are new exchanges; return whether it was written."""
        if not self._fresh:
            return False
        fresh = sorted(self._fresh, key=lambda each: each.started)
        kept = self.exchanges + self.redaction.clean(fresh)
        entries = [to_entry(replace(each, client="", server=""), self.path.parent) for each in kept]
        text = json.dumps(document(entries), indent=1, ensure_ascii=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            beside.write_text(f"{text}\n", encoding="utf-8")
            beside.replace(self.path)
        finally:
            beside.unlink(missing_ok=True)
        return True
