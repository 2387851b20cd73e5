"""Certificates that the authority would not issue."""

from collections.abc import Iterable
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from llama.tls import CertificateAuthority


def copied(
    old: x509.Certificate,
    by: CertificateAuthority,
    extensions: Iterable[x509.Extension[x509.ExtensionType]] | None = None,
    dates: tuple[datetime, datetime] | None = None,
) -> x509.Certificate:
    """A certificate signed anew, with other extensions or other dates."""
    begin, end = dates or (old.not_valid_before_utc, old.not_valid_after_utc)
    builder = x509.CertificateBuilder(
        issuer_name=by.certificate.subject,
        subject_name=old.subject,
        public_key=old.public_key(),
        serial_number=old.serial_number,
        not_valid_before=begin,
        not_valid_after=end,
        extensions=list(old.extensions if extensions is None else extensions),
    )
    return builder.sign(by._key, hashes.SHA256())
