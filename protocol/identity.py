"""Who a program is: a key pair made at its first start; its id is the key's fingerprint.

The private key never leaves the program's data folder. A boot id is drawn at each start.
"""

import fcntl
import hashlib
import os
import secrets
from pathlib import Path
from typing import IO

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from protocol.errors import Conflict

KEY = "key.pem"
"""The private key's file in a data folder."""


class Identity(Struct, frozen=True):
    """A program and its present life."""

    id: str  # the first 160 bits of the public key's SHA-256, hex
    boot: str
    made: bool = False  # it is new: nobody can know it


def open_data(folder: Path) -> IO[bytes]:
    """Make the data folder and lock it while the answer is open: one program each. Raises
    Conflict.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = (folder / "lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise Conflict(
            f"another program uses the data folder {folder}",
            field="data",
            expected="one of its own",
        ) from error
    return lock


def load(folder: Path) -> Identity:
    """The identity kept in the folder, made now if there is none."""
    path = folder / KEY
    made = not path.exists()
    if made:
        _write_key(path)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise Conflict(f"{path} is not an Ed25519 key", field="data", expected="our own key")
    public = key.public_key().public_bytes_raw()
    return Identity(hashlib.sha256(public).hexdigest()[:40], secrets.token_hex(8), made)


def _write_key(path: Path) -> None:
    """Whole or not at all, readable by its owner only."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    part = path.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
