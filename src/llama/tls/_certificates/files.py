"""Server certificates: contexts made from files, which are reloaded when they change."""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from llama._core.errors import ConfigError
from llama.tls._certificates.names import is_pattern, to_pattern
from llama.tls._keylog import KeyLog

log = logging.getLogger("llama.tls")
PathLike: TypeAlias = str | os.PathLike[str]
Password: TypeAlias = str | Callable[[], str]
ClientAuth: TypeAlias = Literal["none", "optional", "required"]
VERSIONS = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_AUTH = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
CHECK_INTERVAL = 1.0  # seconds between checks of the files


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The settings of a server's sessions, besides the certificate."""

    client_ca: PathLike | None = None
    client_auth: ClientAuth | None = None
    minimum_version: str = "TLSv1.2"
    alpn: tuple[str, ...] = ()
    keylog: KeyLog | None = None


class Certificate:
    """A certificate chain and its key, with the names it serves and optional settings for them.

    `cert` is a PEM file with the whole chain, `key` the key's file (None: the same file), `password` the key's
    password, or a function called each time the key is read. `names` default to the certificate's subject
    alternative names. `client_ca`, `client_auth`, `minimum_version` and `alpn` override those of `tls.server`.
    With `client_ca` given here, `client_auth` defaults to `required`.
    """

    __slots__ = ("alpn", "cert", "client_auth", "client_ca", "key", "minimum_version", "names", "password")

    def __init__(
        self,
        cert: PathLike,
        key: PathLike | None = None,
        *,
        password: Password | None = None,
        names: Sequence[str] = (),
        client_ca: PathLike | None = None,
        client_auth: ClientAuth | None = None,
        minimum_version: str | None = None,
        alpn: Sequence[str] | None = None,
    ) -> None:
        self.cert = cert
        self.key = key
        self.password = password
        self.names = tuple(names)
        self.client_ca = client_ca
        self.client_auth: ClientAuth | None = client_auth
        self.minimum_version = minimum_version
        self.alpn = None if alpn is None else tuple(alpn)

    def __repr__(self) -> str:
        return f"tls.Certificate({os.fspath(self.cert)})"

    def policy(self, default: Policy) -> Policy:
        """Return this certificate's policy; settings that are not given come from the server's policy."""
        return Policy(
            client_ca=self.client_ca or default.client_ca,
            client_auth=self.client_auth or (None if self.client_ca else default.client_auth),
            minimum_version=self.minimum_version or default.minimum_version,
            alpn=default.alpn if self.alpn is None else self.alpn,
            keylog=default.keylog,
        )


class CertificateEntry:
    """A certificate in use, with a context that is updated when the files change.

    A changed pair is first loaded into a scratch context; if that fails, the error is logged and the old pair
    stays in use. Open sessions are not affected. The new pair then goes into the context in use, so tickets stay
    valid; a new context replaces it if the client CA or the key type has changed.
    """

    def __init__(self, certificate: Certificate, policy: Policy) -> None:
        self.certificate = certificate
        self.policy = policy
        self._files = [Path(each) for each in (certificate.cert, certificate.key, policy.client_ca) if each]
        self._stamp = self._check_files()
        self._checked_at = time.monotonic()
        self._context = self.load()
        self.version = 0
        self.leaf = read_leaf(Path(certificate.cert))
        self.names = self._names()

    @property
    def key_type(self) -> type[CertificatePublicKeyTypes]:
        """The type of the key, such as RSA or EC: a context holds one pair per type."""
        return type(self.leaf.public_key())

    @property
    def authority_stamp(self) -> object:
        """A value that changes when the client CA file changes."""
        return self._stamp[-1] if self.policy.client_ca else None

    def _names(self) -> tuple[str, ...]:
        """The server names that this certificate serves, as patterns."""
        return tuple(map(to_pattern, self.certificate.names or names_of(self.leaf)))

    def context(self) -> ssl.SSLContext:
        """Return the context for a new session, reloaded if the files have changed."""
        self.refresh()
        return self._context

    def refresh(self) -> None:
        """Check the files, at most once a second, and reload them if they have changed."""
        now = time.monotonic()
        if now - self._checked_at >= CHECK_INTERVAL:
            self._checked_at = now
            if (stamp := self._check_files()) != self._stamp:
                self._reload(stamp)

    def _check_files(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(each) for each in self._files]

    def _reload(self, stamp: list[tuple[int, int, int] | None]) -> None:
        before, self._stamp = self._stamp, stamp
        try:
            fresh = self.load()
            leaf = read_leaf(Path(self.certificate.cert))
        except (ValueError, OSError) as error:
            log.error("certificate reload failed, the current one stays in use: %s", error)
            return
        same_authority = before[-1] == stamp[-1] or not self.policy.client_ca
        same_key_type = type(leaf.public_key()) is self.key_type
        if not (same_authority and same_key_type and self._replace_pair()):
            self._context = fresh
        self.leaf = leaf
        self.version += 1
        self.names = self._names()
        log.info("%s reloaded: serial %x", os.fspath(self.certificate.cert), leaf.serial_number)

    def _replace_pair(self) -> bool:
        """Load the pair, which loaded into a scratch context before, into the context in use: tickets stay valid."""
        try:
            self.load_pair(self._context)
        except (ValueError, OSError):  # the files changed again: this context may be half-updated
            return False
        return True

    def load(self) -> ssl.SSLContext:
        """Create a context with this pair. Raises ConfigError for unusable files or settings."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        set_minimum_version(context, self.policy.minimum_version)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        self.load_pair(context)
        if self.policy.keylog is not None:
            self.policy.keylog.attach(context)
        if self.policy.alpn:
            context.set_alpn_protocols(list(self.policy.alpn))
        auth = self.policy.client_auth or ("required" if self.policy.client_ca else "none")
        if auth not in _AUTH:
            raise ConfigError(f"client_auth={auth!r}: expected none, optional or required")
        if auth != "none":
            if not self.policy.client_ca:
                raise ConfigError(f"client_auth={auth!r} needs client_ca")
            load_authority(context, self.policy.client_ca)
        context.verify_mode = _AUTH[auth]
        return context

    def load_pair(self, context: ssl.SSLContext) -> None:
        """Load the pair into a context, replacing a pair with the same key type."""
        load_pair(context, self.certificate.cert, self.certificate.key, self.certificate.password)


def load_pair(
    context: ssl.SSLContext, cert: PathLike, key: PathLike | None, password: Password | None
) -> None:
    """Load a chain and its key. Raises ConfigError, which names the file and the reason."""
    for path in (cert, key):
        if path is not None and not Path(path).is_file():
            raise ConfigError(f"{os.fspath(path)}: no such file")
    key_file = os.fspath(key or cert)
    ask = _Password(password, key_file)
    try:
        # Always pass a callback: without one OpenSSL prompts for the password on the terminal.
        context.load_cert_chain(cert, key, password=ask)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"{key_file}: the key does not match the certificate in {os.fspath(cert)}"
            ) from None
        if ask.asked:
            raise ConfigError(f"{key_file}: wrong password for the key") from None
        read_leaf(Path(cert))
        raise ConfigError(f"{key_file}: expected a private key in PEM") from None
    except OSError as error:
        raise ConfigError(f"{os.fspath(cert)}, {key_file}: {error.strerror}") from None


class _Password:
    """A password callback for OpenSSL that records whether it was called."""

    def __init__(self, password: Password | None, path: str) -> None:
        self._password = password
        self._path = path
        self.asked = False

    def __call__(self) -> str:
        self.asked = True
        if self._password is None:
            raise ConfigError(f"{self._path}: the key is encrypted: give its password")
        return self._password if isinstance(self._password, str) else self._password()


def load_authority(context: ssl.SSLContext, path: PathLike) -> None:
    """Trust the certificates in a PEM file or a hashed directory. Raises ConfigError, which names the path."""
    try:
        if Path(path).is_dir():
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise ConfigError(
            f"{os.fspath(path)}: expected certificates in PEM: {error.reason or error}"
        ) from None
    except OSError as error:
        raise ConfigError(f"{os.fspath(path)}: {error.strerror}") from None


def set_minimum_version(context: ssl.SSLContext, version: str) -> None:
    """Set the minimum TLS version. Raises ConfigError for an unknown one."""
    if version not in VERSIONS:
        raise ConfigError(f"minimum_version={version!r}: expected one of {', '.join(VERSIONS)}")
    context.minimum_version = ssl.TLSVersion(VERSIONS[version])
    if VERSIONS[version] < VERSIONS["TLSv1.2"]:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # TLS 1.0 and 1.1 need SHA-1, which higher levels reject


def read_leaf(path: Path) -> x509.Certificate:
    """Return the first certificate of a PEM file. Raises ConfigError if there is none."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{path}: expected a certificate in PEM") from None


def names_of(leaf: x509.Certificate) -> tuple[str, ...]:
    """Return the DNS names of a certificate, without those that cannot be a server name, such as an address."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return ()
    return tuple(name for name in found.value.get_values_for_type(x509.DNSName) if is_pattern(name))


def addresses_of(leaf: x509.Certificate) -> tuple[str, ...]:
    """Return the IP addresses of a certificate."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return ()
    return tuple(map(str, found.value.get_values_for_type(x509.IPAddress)))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
