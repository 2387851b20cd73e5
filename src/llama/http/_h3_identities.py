"""The certificates of an HTTP/3 server, chosen by the server name in the ClientHello."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Collection, Sequence

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from qh3._hazmat import Buffer
from qh3.quic.configuration import QuicConfiguration
from qh3.tls import Context

from llama._errors import ConfigError, ProtocolError
from llama.http._h3_trust import load_identity
from llama.tls._certificates import Certificate, Policy, Site
from llama.tls._hello import ClientHello
from llama.tls._sites import SiteGroup, Sites

log = logging.getLogger("llama.http3")


class Identities:
    """Certificates by name, as in `tls.server`; a changed file is read again."""

    def __init__(self, certificates: Sequence[Certificate], configuration: QuicConfiguration) -> None:
        """Raises ConfigError for files that do not work. `configuration` is what all certificates share."""
        for each in certificates:
            if each.client_ca is not None:
                raise ConfigError(
                    f"{each!r}: HTTP/3 does not support client_ca: it requests no client certificate"
                )
        sites = [Site(each, each.policy(Policy())) for each in certificates]
        self._shared = configuration
        self._sites = Sites(sites)
        self._loaded = {site: (site.leaf, self._load(site)) for site in sites}
        self.is_single = len(sites) == 1

    def _load(self, site: Site) -> QuicConfiguration:
        made = copy.copy(self._shared)
        load_identity(made, site.certificate.cert, site.certificate.key, site.certificate.password)
        return made

    def choose(self, name: str | None, schemes: Collection[int] = ()) -> QuicConfiguration:
        """The configuration with the certificate for a server name, of a key type that the client can verify."""
        found = self._sites.choose(name)
        members = found.members if isinstance(found, SiteGroup) else (found,)
        return self._current(next((each for each in members if _schemes(each) & set(schemes)), members[0]))

    def _current(self, site: Site) -> QuicConfiguration:
        site.refresh()
        leaf, configuration = self._loaded[site]
        if leaf is not site.leaf:
            try:
                configuration = self._load(site)
            except (ConfigError, OSError, ValueError) as error:
                log.error("the certificate was not replaced: %s", error)
            self._loaded[site] = (site.leaf, configuration)
        return configuration


def _schemes(site: Site) -> set[int]:
    """The signature schemes that the library has for the key of a certificate (RFC 8446 section 4.2.3)."""
    key = site.leaf.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return {0x0804, 0x0401}
    if isinstance(key, ec.EllipticCurvePublicKey):
        return {{256: 0x0403, 384: 0x0503, 521: 0x0603}.get(key.curve.key_size, 0)}
    return {0x0807}


class NamedContext(Context):
    """The TLS side of a connection that takes the certificate for the name in its client's ClientHello."""

    choose: Callable[[str | None, Collection[int]], QuicConfiguration]

    def _server_handle_hello(
        self, input_buf: Buffer, initial_buf: Buffer, handshake_buf: Buffer, onertt_buf: Buffer
    ) -> None:
        hello = ClientHello(input_buf.data_slice(0, input_buf.capacity), "q")
        name: str | None = None
        schemes: Collection[int] = ()
        with contextlib.suppress(ProtocolError):  # the library parses it too, and ends the handshake
            name, schemes = hello.server_name, hello.signature_algorithms
        chosen = self.choose(name, schemes)
        self.certificate = chosen.certificate
        self.certificate_chain = chosen.certificate_chain
        self.certificate_private_key = chosen.private_key
        self._server_name = name  # the library notes it in the tickets that it issues
        fetch = self.get_session_ticket_cb
        if fetch is not None:  # RFC 8446 section 4.6.1: a session is resumed for its own name only
            self.get_session_ticket_cb = lambda number: (
                ticket if (ticket := fetch(number)) is not None and ticket.server_name == name else None
            )
        super()._server_handle_hello(input_buf, initial_buf, handshake_buf, onertt_buf)


def use_names(context: Context, identities: Identities) -> None:
    """Have a server's TLS context, which the library has made, choose its certificate by name."""
    context.__class__ = NamedContext
    assert isinstance(context, NamedContext)
    context.choose = identities.choose
