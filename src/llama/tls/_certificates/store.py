"""The certificates of one server, and the choice among them by server name."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Sequence
from typing import TypeAlias

from llama._core.errors import ConfigError
from llama.tls._certificates.files import CHECK_INTERVAL, CertificateEntry, Policy, addresses_of
from llama.tls._certificates.names import NameTable, to_pattern

log = logging.getLogger("llama.tls")
_Members: TypeAlias = tuple[CertificateEntry, ...]


class SiteGroup:
    """Certificates with different key types in one context: OpenSSL chooses one that the client can verify.

    Each is reloaded from its own files; one that fails to reload does not affect the others.
    """

    __slots__ = ("_context", "_fixed", "_versions", "members")

    def __init__(self, members: _Members) -> None:
        self.members = members
        self._versions = self._current()
        self._fixed = self._unreplaceable()
        self._context = self._load()

    @property
    def policy(self) -> Policy:
        """The common policy of the members."""
        return self.members[0].policy

    def context(self) -> ssl.SSLContext:
        """Return the context for a new session, reloaded if the files have changed."""
        for site in self.members:
            site.refresh()
        before, self._versions = self._versions, self._current()
        if before != self._versions:
            self._reload(before)
        return self._context

    def _current(self) -> list[int]:
        return [site.version for site in self.members]

    def _unreplaceable(self) -> object:
        """A value that changes if a reload needs a new context: the client CA or a key type changed."""
        return self.members[0].authority_stamp, [site.key_type for site in self.members]

    def _reload(self, before: list[int]) -> None:
        fixed = self._unreplaceable()
        try:
            if fixed == self._fixed and self._replace_pairs(before):
                return
            self._context = self._load()
            self._fixed = fixed
        except (ValueError, OSError) as error:
            log.error("certificate reload failed, the current ones stay in use: %s", error)

    def _replace_pairs(self, before: list[int]) -> bool:
        """Load the changed pairs into the context in use, so that tickets stay valid."""
        try:
            for site, version in zip(self.members, before, strict=True):
                if site.version != version:
                    site.load_pair(self._context)
        except (ValueError, OSError):  # the files changed again: this context may be half-updated
            return False
        return True

    def _load(self) -> ssl.SSLContext:
        first, *others = self.members
        context = first.load()
        for site in others:
            site.load_pair(context)
        return context


class CertificateStore:
    """Certificates by server name: exact, then wildcard; the first certificate serves every other name.

    Names given in the settings take precedence over names in certificates, and earlier certificates over later
    ones with the same key type. Certificates with another key type and the same policy are used together. After a
    reload the names in the new file apply.
    """

    __slots__ = ("_all", "_checked_at", "_default", "_groups", "_table")

    def __init__(self, sites: Sequence[CertificateEntry], *, warn: bool = True) -> None:
        self._all = tuple(sites)
        self._groups: dict[_Members, SiteGroup] = {}
        self._checked_at = time.monotonic()
        _check_given_names(self._all)
        self._build(warn=warn)

    @property
    def only(self) -> CertificateEntry | None:
        """The certificate, if there is only one; it serves all names."""
        return self._all[0] if len(self._all) == 1 else None

    def choose(self, name: str | None) -> CertificateEntry | SiteGroup:
        """Return the certificates for a server name, reloaded if their files have changed."""
        now = time.monotonic()
        if now - self._checked_at >= CHECK_INTERVAL:
            self._checked_at = now
            self._refresh()
        return self._group(self._table.lookup(name) or self._default)

    def _refresh(self) -> None:
        """Check all files, and rebuild the table if a reload changed names or key types."""
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

    def _group(self, members: _Members) -> CertificateEntry | SiteGroup:
        if len(members) == 1:
            return members[0]
        found = self._groups.get(members)
        if found is None:
            try:
                found = self._groups[members] = SiteGroup(members)
            except (ValueError, OSError) as error:  # a file has changed since it was checked
                log.error("%r is used without its alternatives: %s", members[0].certificate, error)
                return members[0]
        return found


def _clash(members: Sequence[CertificateEntry], site: CertificateEntry) -> CertificateEntry | None:
    """Return the first member that cannot share a context with this certificate."""
    for each in members:
        if each.key_type is site.key_type or each.policy != site.policy:
            return each
    return None


def _check_given_names(sites: _Members) -> None:
    given: dict[str, list[CertificateEntry]] = {}
    for site in sites:
        for name in set(map(to_pattern, site.certificate.names)):
            members = given.setdefault(name, [])
            if (other := _clash(members, site)) is not None:
                raise ConfigError(f"{other.certificate!r} and {site.certificate!r} both serve {name!r}")
            members.append(site)


def _by_name(sites: _Members, *, warn: bool) -> dict[str, _Members]:
    found: dict[str, list[CertificateEntry]] = {}
    for site in sorted(sites, key=lambda each: not each.certificate.names):  # given names first
        unused: dict[CertificateEntry, list[str]] = {}
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


def _warn(site: CertificateEntry, other: CertificateEntry, names: Sequence[str]) -> None:
    same = "key type" if other.key_type is site.key_type else "names and other settings"
    text = "%r is not used for %s: %r comes first and has the same %s"
    log.warning(text, site.certificate, ", ".join(names), other.certificate, same)


def _default(sites: _Members) -> _Members:
    """Return the first certificate, and those with other key types that cover all of its names and addresses."""
    members = [sites[0]]
    wanted = _covered(sites[0])
    for site in sites[1:]:
        covered = _covered(site)
        if _clash(members, site) is None and wanted <= covered and bool(wanted) == bool(covered):
            members.append(site)
    return tuple(members)


def _covered(site: CertificateEntry) -> set[str]:
    return {*site.names, *addresses_of(site.leaf)}
