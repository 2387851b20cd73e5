"""The certificates of an HTTP/3 server, chosen by the server name in the ClientHello."""

from __future__ import annotations

import contextlib
import copy
import logging
import ssl
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, cast

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from qh3._hazmat import Buffer
from qh3._hazmat import Certificate as LibraryCertificate
from qh3.quic.configuration import QuicConfiguration
from qh3.tls import AlertDescription, Context, Epoch, State

from llama._core.errors import ConfigError, ProtocolError
from llama.http._h3.client.tls import load_identity
from llama.http._h3.server.client_auth import (
    CONTEXT,
    MAX_CERTIFICATE_MESSAGE,
    ClientAuthentication,
    ClientVerifier,
    alert,
    certificate_request,
)
from llama.tls._certificates.files import Certificate, CertificateEntry, Policy
from llama.tls._certificates.store import CertificateStore, SiteGroup
from llama.tls._client_hello.client_hello import ClientHello
from llama.tls._info import TLSInfo

log = logging.getLogger("llama.http3")


class Identity(NamedTuple):
    """A certificate with its key, and the policy for client certificates."""

    configuration: QuicConfiguration
    verifier: ClientVerifier | None
    """None if no client certificate is requested."""


class Identities:
    """Certificates by name, as in `tls.server`; a changed file is read again."""

    def __init__(
        self,
        certificates: Sequence[Certificate],
        configuration: QuicConfiguration,
        policy: Policy = Policy(),  # noqa: B008 - it is immutable
    ) -> None:
        """`configuration` is shared by all certificates. Raises ConfigError if a file cannot be used."""
        sites = [CertificateEntry(each, each.policy(policy)) for each in certificates]
        self._shared = configuration
        self._sites = CertificateStore(sites)
        self._loaded = {site: (site.leaf, self._load(site)) for site in sites}

    def _load(self, site: CertificateEntry) -> Identity:
        made = copy.copy(self._shared)
        load_identity(made, site.certificate.cert, site.certificate.key, site.certificate.password)
        is_authenticated = site.context().verify_mode != ssl.CERT_NONE
        return Identity(made, ClientVerifier(site) if is_authenticated else None)

    def choose(self, name: str | None, schemes: Collection[int] = ()) -> Identity:
        """The identity with the certificate for a server name, of a key type that the client can verify."""
        found = self._sites.choose(name)
        members = found.members if isinstance(found, SiteGroup) else (found,)
        return self._current(next((each for each in members if _schemes(each) & set(schemes)), members[0]))

    def _current(self, site: CertificateEntry) -> Identity:
        site.refresh()
        leaf, identity = self._loaded[site]
        if leaf is not site.leaf:
            try:
                identity = self._load(site)
            except (ConfigError, OSError, ValueError) as error:
                log.error("the certificate was not replaced: %s", error)
            self._loaded[site] = (site.leaf, identity)
        return identity


def _schemes(site: CertificateEntry) -> set[int]:
    """The signature schemes that the library has for the key of a certificate (RFC 8446 section 4.2.3)."""
    key = site.leaf.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return {0x0804, 0x0401}
    if isinstance(key, ec.EllipticCurvePublicKey):
        return {{256: 0x0403, 384: 0x0503, 521: 0x0603}.get(key.curve.key_size, 0)}
    return {0x0807}


class NamedContext(Context):
    """The TLS context of a server connection, which chooses the certificate by the name in the ClientHello.

    If that certificate's policy requests client certificates, it resumes no session, issues no tickets and accepts no
    early data, so that each handshake verifies the client.
    """

    choose: Callable[[str | None, Collection[int]], Identity]
    requested_name: str | None = None
    client: ClientAuthentication | None = None
    """The authentication of the client, None if no certificate is requested."""
    _request_to: Buffer | None = None
    """The buffer for the CertificateRequest, which precedes the server's own certificate."""

    def _server_handle_hello(
        self, input_buf: Buffer, initial_buf: Buffer, handshake_buf: Buffer, onertt_buf: Buffer
    ) -> None:
        hello = ClientHello(input_buf.data_slice(0, input_buf.capacity), "q")
        name: str | None = None
        schemes: Collection[int] = ()
        with contextlib.suppress(ProtocolError):  # the library parses it too, and ends the handshake
            name, schemes = hello.server_name, hello.signature_algorithms
        chosen, verifier = self.choose(name, schemes)
        self.certificate = chosen.certificate
        self._chain = chosen.certificate_chain
        self.certificate_private_key = chosen.private_key
        self._server_name = self.requested_name = name  # the library notes it in the tickets that it issues
        if verifier is not None:
            self.client = ClientAuthentication(verifier)
            self.get_session_ticket_cb = self.new_session_ticket_cb = None
            self._request_to = handshake_buf
            # With this flag, the library includes the client's messages before its Finished in the transcript.
            self._alps_negotiated = True
        fetch = self.get_session_ticket_cb
        if fetch is not None:  # RFC 8446 section 4.6.1: a session is resumed for its own name only
            self.get_session_ticket_cb = lambda number: (
                ticket if (ticket := fetch(number)) is not None and ticket.server_name == name else None
            )
        super()._server_handle_hello(input_buf, initial_buf, handshake_buf, onertt_buf)
        if self._request_to is not None:
            raise alert(AlertDescription.internal_error, "no client certificate was requested")

    @property
    def certificate_chain(self) -> list[LibraryCertificate]:
        """The library reads it once, to write its Certificate message, so the request is written first."""
        if self._request_to is not None:
            self._request_to.push_bytes(certificate_request())
            self._request_to = None
        return self._chain

    @certificate_chain.setter
    def certificate_chain(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, chain: list[LibraryCertificate]
    ) -> None:
        self._chain = chain

    def handle_message(self, input_data: bytes, output_buf: dict[Epoch, Buffer], epoch: int = -1) -> None:
        client = self.client
        if client is not None and not client.is_complete and self.state == State.SERVER_EXPECT_FINISHED:
            if epoch != Epoch.HANDSHAKE:
                raise alert(AlertDescription.unexpected_message, "expected the client's certificate")
            self._receive_buffer += input_data
            input_data = b""
            while not client.is_complete:
                message = self._next_message()
                if message is None:
                    return
                assert self.key_schedule is not None
                client.receive(message, self.key_schedule.certificate_verify_data(CONTEXT))
                self.key_schedule.update_hash(message)
        super().handle_message(input_data, output_buf, epoch)

    def _next_message(self) -> bytes | None:
        """Remove and return a complete handshake message from the received bytes."""
        waiting = self._receive_buffer
        size = 4 + int.from_bytes(waiting[1:4], "big")
        if size > MAX_CERTIFICATE_MESSAGE:
            raise alert(AlertDescription.illegal_parameter, f"a message of {size} bytes is too large")
        if len(waiting) < 4 or len(waiting) < size:
            return None
        self._receive_buffer = waiting[size:]
        return waiting[:size]

    def _server_handle_client_encrypted_extensions(self, input_buf: Buffer) -> None:
        raise alert(AlertDescription.unexpected_message, "application settings were not negotiated")

    def _server_handle_finished(self, input_buf: Buffer, output_buf: Buffer) -> None:
        if self.client is not None and not self.client.is_complete:
            raise alert(AlertDescription.unexpected_message, "expected the client's certificate")
        super()._server_handle_finished(input_buf, output_buf)


class _Session:
    """The part of `ssl.SSLObject` that `TLSInfo` reads."""

    def __init__(self, context: NamedContext) -> None:
        self._context = context

    def version(self) -> str:
        return "TLSv1.3"

    def cipher(self) -> tuple[str, str, int] | None:
        schedule = self._context.key_schedule
        return None if schedule is None else (f"TLS_{schedule.cipher_suite.name}", "TLSv1.3", 0)

    def selected_alpn_protocol(self) -> str | None:
        return self._context.alpn_negotiated

    @property
    def session_reused(self) -> bool:
        return self._context.session_resumed

    def getpeercert(self, binary_form: bool = False) -> dict[str, Any] | bytes | None:
        client = self._context.client
        if client is None or client.certificate is None:
            return None
        return client.certificate.der if binary_form else client.certificate.info


def tls_info(context: Context) -> TLSInfo:
    """The TLS session of a connection whose ClientHello has arrived."""
    assert isinstance(context, NamedContext)
    return TLSInfo(cast("ssl.SSLObject", _Session(context)), context.requested_name)


def use_names(context: Context, identities: Identities) -> None:
    """Make a server's TLS context, which the library has created, choose its certificate by name."""
    chain = context.certificate_chain
    context.__class__ = NamedContext
    assert isinstance(context, NamedContext)
    context.certificate_chain = chain
    context.choose = identities.choose
