"""Hooks from a file, which is loaded again when it changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from inspect import isawaitable
from pathlib import Path
from typing import TypeAlias

from llama import ConfigError, mitm
from llama._cli.mitm.script.loader import Loader, Stamp, stamp
from llama._cli.mitm.script.version import ActiveScript, HttpLayer, ScriptLayer, ScriptSlot, ScriptVersion
from llama._core.loggers import logger
from llama._core.stack import named_layer
from llama.http import Request, RequestHandler

log = logger("mitm")
INTERVAL = 0.25
Told: TypeAlias = Callable[[ConfigError | None], object]


@dataclass(frozen=True, slots=True)
class _ActiveChunkHook:
    """The hook that a connection began with."""

    script: Script
    hook: mitm.ChunkHook


class Script:
    """A Python file of hooks: a list `layers`, and by name what `ws.inspect` and `mitm.relay` take.

    `layers` are layers of HTTP exchanges, the first outermost; a bare `async def hook(request, inner)` is one too.
    `on_message`, `on_open` and `on_close` are those of `ws.inspect`, `on_chunk` is that of `mitm.relay`. ConfigError
    with the script's own traceback for one that cannot be loaded, or that has none of them.

    Every `interval` seconds `watch` looks whether the file has changed, or a module that it imports from its own
    directory. `on_reload` is called with None after it was loaded again, and with the error where it was not.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, interval: float = INTERVAL, on_reload: Told | None = None
    ) -> None:
        self.path = Path(path)
        self._loader = Loader(path)
        self._interval = interval
        self._on_reload = on_reload
        self._slots: list[ScriptSlot] = []
        self._shown = ""
        self._stamps = self._check_files()
        self._edition = self._load()
        self._loader.keep()
        self._stamps = self._check_files() | self._stamps
        self.layer: HttpLayer = named_layer(repr(self), self._build, input_type=Request, inner_type=Request)
        """Sends each exchange through the layers that are current when it begins."""

    def __repr__(self) -> str:
        return f"script({self.path})"

    def _build(self, inner: RequestHandler) -> RequestHandler:
        place = ScriptSlot(inner, repr(self), lambda: self._edition, self._slots)
        return ScriptLayer(inner, place, repr(self))

    async def on_chunk(self, chunk: mitm.Chunk) -> bytes:
        """The hook for bytes that are no HTTP: a connection goes on with the one that saw it first."""
        known = chunk.bridge.extensions
        chosen = known.get(_ActiveChunkHook)
        if chosen is None or chosen.script is not self:
            chosen = _ActiveChunkHook(self, self._edition.chunks or _unchanged)
            known.set(chosen)
        made = chosen.hook(chunk)
        return await made if isawaitable(made) else made

    def close(self) -> None:
        """Forget its modules."""
        self._loader.close()

    # loading

    def _load(self) -> ScriptVersion:
        try:
            module = self._loader.load()
        except (Exception, SystemExit) as error:
            raise self._error(error) from None
        try:
            return ScriptVersion.of(module, repr(self))
        except Exception as error:
            text = (
                str(error) if isinstance(error, ConfigError | TypeError) else self._loader.loaded_files(error)
            )
            self._loader.undo()
            raise ConfigError(f"{self.path}: {text}") from None

    def _error(self, error: BaseException) -> ConfigError:
        if isinstance(error, OSError) and error.filename == str(self._loader.path):
            return ConfigError(f"{self.path} cannot be read: {error.strerror}")
        return ConfigError(f"{self.path} cannot be loaded:\n{self._loader.loaded_files(error)}")

    async def watch(self) -> None:
        """Load it again whenever it has changed, until cancelled; what fails is logged, and the one before stays."""
        settling: dict[str, Stamp] = {}
        while True:
            await asyncio.sleep(self._interval)
            now = self._check_files()
            for file in now.keys() - self._stamps.keys():  # imported since
                self._stamps[file] = now[file]
            if all(self._stamps[file] == each for file, each in now.items()):
                continue
            if now != settling:  # it may be being written
                settling = now
                continue
            self._stamps |= now
            await self._reload()
            self._stamps = self._check_files() | self._stamps

    def _check_files(self) -> dict[str, Stamp]:
        return {file: stamp(file) for file in self._loader.files()}

    async def _reload(self) -> None:
        try:
            edition = self._load()
            await self._replace(edition)
        except ConfigError as error:
            if str(error) != self._shown:
                self._shown = str(error)
                log.error("%s\nThe one before stays.", error)
            failure: ConfigError | None = error
        else:
            self._shown = ""
            log.info("%s was loaded again", self.path)
            failure = None
        if self._on_reload is not None:
            self._on_reload(failure)

    async def _replace(self, edition: ScriptVersion) -> None:
        """Put an edition to work in all places, or in none of them."""
        works: list[ActiveScript] = []
        places = self._slots[:]
        try:
            for place in places:
                works.append(await place.prepare(edition))  # noqa: PERF401  # those before are ended where one fails
        except BaseException as error:
            for work in works:
                work.end()
            text = self._loader.loaded_files(error)
            self._loader.undo()
            if not isinstance(error, Exception):
                raise
            raise ConfigError(f"{self.path}: what its layers own cannot be opened:\n{text}") from None
        self._loader.keep()
        self._edition = edition
        for place, work in zip(places, works, strict=True):
            place.replace(work)


def _unchanged(chunk: mitm.Chunk) -> bytes:
    return chunk.data
