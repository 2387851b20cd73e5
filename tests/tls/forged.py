"""Certificates that the authority would not issue."""

from collections.abc import Iterable
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtensionOID

from llama.tls import CertificateAuthority

AUTHORITY_KEY_IDENTIFIER = ExtensionOID.AUTHORITY_KEY_IDENTIFIER


def copied(
    old: x509.Certificate,
    by: CertificateAuthority,
    extensions: Iterable[x509.Extension[x509.ExtensionType]] | None = None,
    dates: tuple[datetime, datetime] | None = None,
) -> x509.Certificate:
    """A certificate signed anew, with other extensions or other dates."""
    wanted = [each for each in extensions or old.extensions if each.oid != AUTHORITY_KEY_IDENTIFIER]
    if old.subject != by.certificate.subject:
        wanted.append(x509.Extension(AUTHORITY_KEY_IDENTIFIER, False, by._authority_identifier))
    begin, end = dates or (old.not_valid_before_utc, old.not_valid_after_utc)
    builder = x509.CertificateBuilder(
        issuer_name=by.certificate.subject,
        subject_name=old.subject,
        public_key=old.public_key(),
        serial_number=old.serial_number,
        not_valid_before=begin,
        not_valid_after=end,
        extensions=wanted,
    )
    return builder.sign(by._key, hashes.SHA256())
