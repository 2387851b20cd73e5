"""The certificates of one server, and which of them are for a name."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Sequence
from typing import TypeAlias

from llama._errors import ConfigError
from llama.tls._certificates import CHECK_INTERVAL, Policy, Site, addresses_of
from llama.tls._names import NameTable, to_pattern

log = logging.getLogger("llama.tls")
_Members: TypeAlias = tuple[Site, ...]


class SiteGroup:
    """Certificates with different types of keys in one context: OpenSSL chooses one that the client can verify.

    Each follows its own files, and one that cannot be read again leaves the others as they are.
    """

    __slots__ = ("_context", "_fixed", "_versions", "members")

    def __init__(self, members: _Members) -> None:
        self.members = members
        self._versions = self._current()
        self._fixed = self._unreplaceable()
        self._context = self._load()

    @property
    def policy(self) -> Policy:
        """The policy that they have in common."""
        return self.members[0].policy

    def context(self) -> ssl.SSLContext:
        """The context for a new session, as the files are now."""
        for site in self.members:
            site.refresh()
        before, self._versions = self._versions, self._current()
        if before != self._versions:
            self._reload(before)
        return self._context

    def _current(self) -> list[int]:
        return [site.version for site in self.members]

    def _unreplaceable(self) -> object:
        """What changes only with the context: the clients' authority, and the types of the keys."""
        return self.members[0].authority_stamp, [site.key_type for site in self.members]

    def _reload(self, before: list[int]) -> None:
        fixed = self._unreplaceable()
        try:
            if fixed == self._fixed and self._replace_pairs(before):
                return
            self._context = self._load()
            self._fixed = fixed
        except (ValueError, OSError) as error:
            log.error("the certificates were not replaced: %s", error)

    def _replace_pairs(self, before: list[int]) -> bool:
        """Load what has changed into the context in use, whose tickets then stay valid."""
        try:
            for site, version in zip(self.members, before, strict=True):
                if site.version != version:
                    site.load_pair(self._context)
        except (ValueError, OSError):  # it has changed again, and the context is spoilt
            return False
        return True

    def _load(self) -> ssl.SSLContext:
        first, *others = self.members
        context = first.load()
        for site in others:
            site.load_pair(context)
        return context


class Sites:
    """Certificates by name: exact, then wildcard; the first is also for every other name.

    Names that were given go before those that are in certificates, and earlier certificates before later
    ones with the same type of key; those with another type of key and the same policy join them. When a file is
    read again, the names in it count from then on.
    """

    __slots__ = ("_all", "_checked_at", "_default", "_groups", "_table")

    def __init__(self, sites: Sequence[Site], *, warn: bool = True) -> None:
        self._all = tuple(sites)
        self._groups: dict[_Members, SiteGroup] = {}
        self._checked_at = time.monotonic()
        _check_given_names(self._all)
        self._build(warn=warn)

    @property
    def only(self) -> Site | None:
        """The certificate that is for all names."""
        return self._all[0] if len(self._all) == 1 else None

    def choose(self, name: str | None) -> Site | SiteGroup:
        """The certificates for a name that a client asks for, as their files are now."""
        now = time.monotonic()
        if now - self._checked_at >= CHECK_INTERVAL:
            self._checked_at = now
            self._refresh()
        return self._group(self._table.lookup(name) or self._default)

    def _refresh(self) -> None:
        """Look at all files: another one may be for a name from now on, or have another type of key."""
        before = [(site.names, site.key_type) for site in self._all]
        for site in self._all:
            site.refresh()
        if before != [(site.names, site.key_type) for site in self._all]:
            self._build(warn=True)

    def _build(self, *, warn: bool) -> None:
        by_name = _by_name(self._all, warn=warn)
        self._table = NameTable(by_name)
        self._default = _default(self._all)
        wanted = {*by_name.values(), self._default}
        self._groups = {members: group for members, group in self._groups.items() if members in wanted}

    def _group(self, members: _Members) -> Site | SiteGroup:
        if len(members) == 1:
            return members[0]
        found = self._groups.get(members)
        if found is None:
            try:
                found = self._groups[members] = SiteGroup(members)
            except (ValueError, OSError) as error:  # a file has changed since it was proven
                log.error("%r is used alone: %s", members[0].certificate, error)
                return members[0]
        return found


def _clash(members: Sequence[Site], site: Site) -> Site | None:
    """The first of these that a certificate cannot join."""
    for each in members:
        if each.key_type is site.key_type or each.policy != site.policy:
            return each
    return None


def _check_given_names(sites: _Members) -> None:
    given: dict[str, list[Site]] = {}
    for site in sites:
        for name in set(map(to_pattern, site.certificate.names)):
            members = given.setdefault(name, [])
            if (other := _clash(members, site)) is not None:
                raise ConfigError(f"{other.certificate!r} and {site.certificate!r} are both for {name!r}")
            members.append(site)


def _by_name(sites: _Members, *, warn: bool) -> dict[str, _Members]:
    found: dict[str, list[Site]] = {}
    for site in sorted(sites, key=lambda each: not each.certificate.names):  # given names first
        unused: dict[Site, list[str]] = {}
        for name in dict.fromkeys(site.names):
            members = found.setdefault(name, [])
            if (other := _clash(members, site)) is None:
                members.append(site)
            elif not other.certificate.names:
                unused.setdefault(other, []).append(name)
        if warn:
            for other, names in unused.items():
                _warn(site, other, names)
    return {name: tuple(members) for name, members in found.items()}


def _warn(site: Site, other: Site, names: Sequence[str]) -> None:
    same = "key type" if other.key_type is site.key_type else "names and other settings"
    text = "%r is not used for %s: %r comes first and has the same %s"
    log.warning(text, site.certificate, ", ".join(names), other.certificate, same)


def _default(sites: _Members) -> _Members:
    """The first certificate, and those with other types of keys that are for all that it is for."""
    members = [sites[0]]
    wanted = _covered(sites[0])
    for site in sites[1:]:
        covered = _covered(site)
        if _clash(members, site) is None and wanted <= covered and bool(wanted) == bool(covered):
            members.append(site)
    return tuple(members)


def _covered(site: Site) -> set[str]:
    return {*site.names, *addresses_of(site.leaf)}
