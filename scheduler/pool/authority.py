"""The pool's certificate authority, kept by the scheduler: whom it makes a certificate for, and how
it is replaced by another one without anybody losing touch.

A pool has one authority, or two while one replaces the other. Then the members first learn to
believe the new one; when all do, it makes the certificates; when all have one of these, the old one
goes.
"""

import secrets
from collections.abc import Callable
from hmac import compare_digest
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct
from msgspec.structs import replace

from protocol.errors import Conflict, Denied, Invalid
from protocol.storage.whole_file import write_whole
from protocol.trust import certificates, token
from protocol.trust.membership import Membership
from protocol.trust.token import JoinToken

FOLDER = "authority"
"""Where a scheduler's data folder has it."""
_STATE = "state.json"


class _State(Struct, frozen=True):
    """What the folder says; its generations' files were there before."""

    pool: str
    secret: str  # of join tokens, hex
    generations: tuple[int, ...]  # of authorities that are believed, the oldest first
    makes: int  # the one of them that makes certificates


class _Generation(Struct, frozen=True):
    """An authority."""

    number: int
    key: Ed25519PrivateKey
    certificate: x509.Certificate


class Authority:
    """The authority of one pool, in a folder. Blocking, for moments."""

    def __init__(self, folder: Path, validity: float, clock: Callable[[], float]) -> None:
        """Made now if there is none. `folder`: the data folder; `validity`: seconds that a
        program's certificate is good for. Raises Conflict where what is there cannot be read.
        """
        self._folder = folder / FOLDER
        self._validity = validity
        self._clock = clock
        self._folder.mkdir(exist_ok=True, mode=0o700)
        if not (self._folder / _STATE).exists():
            self._make(1, pool := secrets.token_hex(8))
            self._write(_State(pool, secrets.token_hex(token.SECRET), (1,), 1))
        self._state = self._read()
        self._generations = {number: self._load(number) for number in self._state.generations}

    @property
    def pool(self) -> str:
        """The pool's id."""
        return self._state.pool

    @property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """Those that members are to believe, the one that makes certificates first."""
        first = self._state.makes
        ordered = sorted(self._generations, key=lambda number: number != first)
        return tuple(self._generations[number].certificate for number in ordered)

    @property
    def token(self) -> JoinToken:
        """What a program joins with, until another is made."""
        made = self._generations[self._state.makes].certificate
        return JoinToken(certificates.digest(made), bytes.fromhex(self._state.secret))

    def new_token(self) -> JoinToken:
        """From now on only this one admits; who is in stays in."""
        self._write(replace(self._state, secret=secrets.token_hex(token.SECRET)))
        return self.token

    def check(self, secret: bytes) -> None:
        """Raises Denied for a secret that admits nobody."""
        known = token.hashed(bytes.fromhex(self._state.secret))
        if not compare_digest(known, token.hashed(secret)):
            raise Denied("the join token is not, or not any more, one of this pool")

    def admit(self, request: bytes, role: str) -> Membership:
        """The membership of the program that proves its key in that request. Whether it may be one
        was decided before. Raises Invalid.
        """
        makes = self._generations[self._state.makes]
        made = certificates.issue(
            certificates.asked(request),
            role,
            makes.certificate,
            makes.key,
            self._clock(),
            self._validity,
        )
        return Membership(self.certificates, made)

    # Replacing it

    @property
    def generations(self) -> tuple[int, ...]:
        """Of authorities that are believed, the oldest first."""
        return self._state.generations

    @property
    def makes(self) -> int:
        """The generation that makes certificates."""
        return self._state.makes

    def begin_replacing(self) -> None:
        """Make the next authority, which members learn to believe. Raises Conflict where one is
        being replaced.
        """
        if len(self._state.generations) > 1:
            raise Conflict("the authority is being replaced", expected="to end that first")
        number = self._state.generations[-1] + 1
        self._make(number, self.pool)
        self._generations[number] = self._load(number)
        self._write(replace(self._state, generations=(*self._state.generations, number)))

    def use_newest(self) -> None:
        """From now on the newest one makes certificates."""
        self._write(replace(self._state, makes=self._state.generations[-1]))

    def end_replacing(self) -> None:
        """Believe the one that makes certificates, and no other."""
        self._write(replace(self._state, generations=(self._state.makes,)))
        for number in tuple(self._generations):
            if number not in self._state.generations:
                del self._generations[number]
                for path in self._paths(number):
                    path.unlink(missing_ok=True)

    # Files

    def _paths(self, number: int) -> tuple[Path, Path]:
        return self._folder / f"{number}-key.pem", self._folder / f"{number}.pem"

    def _make(self, number: int, pool: str) -> None:
        key = Ed25519PrivateKey.generate()
        form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        key_path, path = self._paths(number)
        write_whole(key_path, key.private_bytes(serialization.Encoding.PEM, *form))
        write_whole(path, certificates.pem(certificates.make_authority(key, pool, self._clock())))

    def _load(self, number: int) -> _Generation:
        key_path, path = self._paths(number)
        try:
            key = serialization.load_pem_private_key(key_path.read_bytes(), None)
            certificate = certificates.read(path.read_bytes())
        except (OSError, ValueError, Invalid) as error:
            raise _damaged(path, error) from error
        assert isinstance(key, Ed25519PrivateKey)
        return _Generation(number, key, certificate)

    def _read(self) -> _State:
        path = self._folder / _STATE
        try:
            return msgspec.json.decode(path.read_bytes(), type=_State)
        except (OSError, msgspec.MsgspecError) as error:
            raise _damaged(path, error) from error

    def _write(self, state: _State) -> None:
        write_whole(self._folder / _STATE, msgspec.json.encode(state))
        self._state = state


def _damaged(path: Path, error: Exception) -> Conflict:
    return Conflict(
        f"{path} cannot be read: {error}",
        field="data",
        expected="the pool's authority; from a backup, or remove its folder and admit all anew",
    )
