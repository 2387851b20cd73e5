"""The fixtures, configured by markers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TypeVar, cast

import pytest

from llama.testing._fixtures.cassette import MODES, Cassette, CassetteOptions, Mode
from llama.testing._fixtures.cassette_layer import cassette_layer, offline
from llama.testing._fixtures.recording_proxy import Authority, ProxyOptions, RecordingProxy
from llama.testing._fixtures.redaction import Redaction

T = TypeVar("T", ProxyOptions, CassetteOptions)
LONGEST = 120  # characters of a file's name
_UNSAFE = re.compile(r"[^A-Za-z0-9_.,=+@-]+")


def item_of(request: pytest.FixtureRequest) -> pytest.Item:
    """The test that requested a fixture."""
    return cast("pytest.Item", request.node)  # pyright: ignore[reportUnknownMemberType]  # pytest leaves it open


@contextmanager
def proxy_for(request: pytest.FixtureRequest, authority: Authority) -> Generator[RecordingProxy]:
    """The proxy of one test."""
    proxy = RecordingProxy(authority, _told(item_of(request), "llama_proxy", ProxyOptions))
    with proxy.running():
        yield proxy


@contextmanager
def cassette_for(
    request: pytest.FixtureRequest, authority: Authority, redaction: Redaction
) -> Generator[Cassette]:
    """The cassette of one test, and its proxy."""
    item = item_of(request)
    options = _told(item, "cassette", CassetteOptions)
    path = cassette_path(item, options.name)
    name = str(path.relative_to(item.config.rootpath) if path.is_relative_to(item.config.rootpath) else path)
    cassette = Cassette(path, _mode(item.config, options), options, options.redact or redaction, name)
    around = _told(item, "llama_proxy", ProxyOptions)
    around.inmost, around.connect = (cassette_layer(cassette),), offline(cassette, around.connect)
    cassette.proxy = RecordingProxy(authority, around)
    with cassette.proxy.running():
        yield cassette
    if cassette.passed and not cassette.problems:
        cassette.write()
    if news := cassette.summary():
        pytest.fail(news, pytrace=False)


def _told(item: pytest.Item, name: str, kind: type[T]) -> T:
    """Return the options of a test's markers; the closest marker takes precedence."""
    told: dict[str, object] = {}
    for marker in item.iter_markers(name):
        here = dict(marker.kwargs)
        if kind is CassetteOptions and len(marker.args) == 1:
            here["name"] = marker.args[0]
        elif marker.args:
            raise pytest.UsageError(f"@pytest.mark.{name}(...) takes keywords only")
        told = {**here, **told}
    known = [each.name for each in fields(kind) if each.init]
    for each in told:
        if each not in known:
            raise pytest.UsageError(f"@pytest.mark.{name}({each}=...): expected {', '.join(known)}")
    return kind(**told)  # type: ignore[arg-type]  # what has no sense is told by the values' use


def _mode(config: pytest.Config, options: CassetteOptions) -> Mode:
    mode = config.getoption("--cassette") or options.mode or config.getini("cassette")
    if mode not in MODES:
        raise pytest.UsageError(f"cassette = {mode}: expected one of {', '.join(MODES)}")
    return mode


def cassette_path(item: pytest.Item, name: str | None) -> Path:
    """Return `cassettes/MODULE/TEST.har` beside the test's file; `name` replaces the file name.

    Characters that file names should not contain are replaced, and a suffix keeps such names distinct.
    """
    folder = item.path.parent / "cassettes" / item.path.stem
    if name is not None:
        return folder / (name if name.endswith(".har") else f"{name}.har")
    classes = [each.name for each in item.listchain() if isinstance(each, pytest.Class)]
    whole = ".".join([*classes, item.name])
    safe = _UNSAFE.sub("-", whole).strip("-.")
    if safe != whole or len(safe) > LONGEST:
        safe = f"{safe[:LONGEST]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
    return folder / f"{safe}.har"
