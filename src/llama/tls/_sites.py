"""The certificates of one server, and which of them is for a name."""

from __future__ import annotations

from collections.abc import Sequence

from llama._errors import ConfigError
from llama.tls._certificates import Site
from llama.tls._names import NameTable, to_pattern


class Sites:
    """Certificates by name: exact, then wildcard; the first is also for every other name.

    Names that were given go before those that are in certificates, and earlier certificates before later
    ones. When a file is read again, the names in it count from then on.
    """

    __slots__ = ("_all", "_table")

    def __init__(self, sites: Sequence[Site]) -> None:
        self._all = tuple(sites)
        self._table = _table(self._all)

    @property
    def only(self) -> Site | None:
        """The certificate that is for all names."""
        return self._all[0] if len(self._all) == 1 else None

    def choose(self, name: str | None) -> Site:
        """The certificate for a name that a client asks for, as its files are now."""
        found = self._table.lookup(name) if name is not None else self._all[0]
        # A name that nobody has may stand in a file that has changed.
        if self._changed(self._all if found is None else (found,)):
            self._table = _table(self._all)
            found = self._table.lookup(name)
        return found or self._all[0]

    def _changed(self, sites: Sequence[Site]) -> bool:
        before = [site.names for site in sites]
        for site in sites:
            site.refresh()
        return before != [site.names for site in sites]


def _table(sites: Sequence[Site]) -> NameTable[Site]:
    given: dict[str, Site] = {}
    for site in sites:
        for name in map(to_pattern, site.certificate.names):
            if given.setdefault(name, site) is not site:
                raise ConfigError(
                    f"{given[name].certificate!r} and {site.certificate!r} are both for {name!r}"
                )
    for site in sites:
        for name in site.names:
            given.setdefault(name, site)
    return NameTable(given)
