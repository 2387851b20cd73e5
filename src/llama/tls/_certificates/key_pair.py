"""A certificate with its key, in memory and on disk."""

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key in PEM.

    `cert_pem` holds the certificate, followed by the intermediates that a client needs to verify it.
    """

    cert_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)

    def write(self, directory: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write `cert.pem` and `key.pem`, replacing existing ones, and return their paths.

        Only the owner can read the key.
        """
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        certificate, key = folder / "cert.pem", folder / "key.pem"
        replace_file(key, self.key_pem, 0o600)
        replace_file(certificate, self.cert_pem, 0o644)
        return certificate, key


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Replace a file atomically: readers see the old or the new content, always with this mode."""
    draft = write_draft(path, data, mode)
    try:
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def create_file(path: Path, data: bytes, mode: int) -> bool:
    """Create a file atomically; False if it already exists, and then it is left unchanged."""
    draft = write_draft(path, data, mode)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def write_draft(path: Path, data: bytes, mode: int) -> Path:
    """Write a temporary file in the same directory, with a unique name."""
    draft = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    return draft
