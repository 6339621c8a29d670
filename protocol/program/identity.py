"""Who a program is: a key pair made at its first start; its id is the key's fingerprint.

The private key never leaves the program's data folder. A boot id is drawn at each start.
"""

import fcntl
import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from protocol.errors import Conflict, Invalid
from protocol.storage.whole_file import write_whole
from protocol.trust.certificates import fingerprint

KEY = "key.pem"
"""The private key's file in a data folder."""


class Identity(Struct, frozen=True):
    """A program and its present life."""

    id: str  # the first 160 bits of the public key's SHA-256, hex
    boot: str
    made: bool = False  # it is new: nobody can know it
    secret: bytes = b""  # made of the key, and as secret

    def __repr__(self) -> str:
        return f"Identity({self.id}, {self.boot})"


def open_data(folder: Path) -> IO[bytes]:
    """Make the data folder and lock it while the answer is open: one program each. Raises
    Conflict, and Invalid where there can be no such folder.
    """
    with _ours(folder):
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
    """The identity kept in the folder, made now if there is none. Raises Conflict where what is
    there is none, Invalid where it cannot be read or written.
    """
    path = folder / KEY
    made = not path.exists()
    with _ours(folder):
        if made:
            _write_key(path)
        key = key_of(folder)
    secret = hashlib.sha256(b"imagepool program\n" + key.private_bytes_raw()).digest()
    return Identity(fingerprint(key.public_key()), secrets.token_hex(8), made, secret)


def key_of(folder: Path) -> Ed25519PrivateKey:
    """The private key in the folder. Raises Conflict where what is there is none, OSError."""
    path = folder / KEY
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise Conflict(f"{path} is not an Ed25519 key", field="data", expected="our own key")
    return key


@contextmanager
def _ours(folder: Path) -> Iterator[None]:
    """What goes wrong with the folder is the setting's fault. Raises Invalid."""
    try:
        yield
    except OSError as error:
        raise Invalid(
            f"the data folder {folder} cannot be used: {error.filename}: {error.strerror}",
            field="data",
            expected="a folder that this program may make and write in",
        ) from error


def _write_key(path: Path) -> None:
    """Whole or not at all, readable by its owner only."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_whole(path, pem)
