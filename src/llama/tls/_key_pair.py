"""A certificate with its key, in memory and on disk."""

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key in PEM.

    `cert_pem` holds the certificate and, after it, what a client needs to find its way to the root.
    """

    cert_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)

    def write(self, directory: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write `cert.pem` and `key.pem` over older ones, the key for its owner alone; gives their paths."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        certificate, key = folder / "cert.pem", folder / "key.pem"
        replace_file(key, self.key_pem, 0o600)
        replace_file(certificate, self.cert_pem, 0o644)
        return certificate, key


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Write a file in one step: readers see the old one or the new one, and never with another mode."""
    draft = write_draft(path, data, mode)
    try:
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def create_file(path: Path, data: bytes, mode: int) -> bool:
    """Write a new file in one step; False where there is one already, which stays as it is."""
    draft = write_draft(path, data, mode)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def write_draft(path: Path, data: bytes, mode: int) -> Path:
    """Write beside a file, under a name of its own."""
    draft = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    return draft
