"""The pools that a program belongs to: certificates in a folder of its data folder, and what TLS
makes of them.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from msgspec import Struct

from protocol.errors import Denied, Invalid
from protocol.storage.whole_file import write_whole
from protocol.trust import certificates
from protocol.trust.certificates import Party

FOLDER = "pools"
"""Where a data folder has them, in a folder for each pool."""
_AUTHORITIES = "authorities.pem"
_CERTIFICATE = "certificate.pem"
_END = b"-----END CERTIFICATE-----\n"
_PARTIES = 4096  # certificates of others that are remembered


class Membership(Struct, frozen=True):
    """What makes a program one of a pool."""

    authorities: tuple[x509.Certificate, ...]  # whose certificates are believed
    certificate: x509.Certificate  # ours

    @property
    def pool(self) -> str:
        """The pool's id."""
        return certificates.pool_of(self.authorities[0])


class Memberships:
    """The pools of one program. For use on the event loop."""

    def __init__(self, folder: Path, key: Path) -> None:
        """`folder`: the program's data folder; `key`: its private key's file. Raises Invalid for a
        certificate that cannot be read.
        """
        self._folder = folder / FOLDER
        self._key = key
        self._found: dict[str, Membership] = {}
        self._clients: dict[str, ssl.SSLContext] = {}
        self._servers: dict[str, ssl.SSLContext] = {}
        self._parties: dict[bytes, Party] = {}  # by certificate, since each request shows one
        for place in sorted(self._folder.glob("*")):
            if (place / _CERTIFICATE).exists():
                self._take(_read(place), place)

    def __bool__(self) -> bool:
        return bool(self._found)

    def all(self) -> Mapping[str, Membership]:
        """Every one, by the pool's id."""
        return self._found

    def put(self, membership: Membership) -> None:
        """Keep it, in place of an earlier one of the same pool; connections made from now on go by
        it. It is on disk when this returns.
        """
        place = self._folder / membership.pool
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(
            place / _AUTHORITIES,
            b"".join(certificates.pem(one) for one in membership.authorities),
        )
        write_whole(place / _CERTIFICATE, certificates.pem(membership.certificate))
        self._take(membership, place)

    def client(self, pool: str) -> ssl.SSLContext:
        """To call programs of that pool with; the name that it is to find there is the caller's
        matter.
        """
        return self._clients[pool]

    def server(self) -> ssl.SSLContext:
        """To be called with, by programs of any of our pools, and by those that have no certificate
        yet. Who calls is in `party`.
        """
        outer = _context(ssl.PROTOCOL_TLS_SERVER)
        outer.verify_mode = ssl.CERT_OPTIONAL  # of the connection; whom to believe is the pool's
        outer.sni_callback = self._choose
        return outer

    def party(self, der: bytes | None) -> Party | None:
        """Who is at the other end of a connection that this certificate was shown on; None where
        there was none. Raises Denied.
        """
        if der is None:
            return None
        party = self._parties.get(der)
        if party is None:
            known = [one for member in self._found.values() for one in member.authorities]
            party = certificates.party(der, known)
            if len(self._parties) >= _PARTIES:
                self._parties.clear()
            self._parties[der] = party
        return party

    def _choose(
        self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext
    ) -> int | None:
        """Called in the handshake: the pool that the caller means by the name it looks for. Who
        knows none yet gets to see the first one; that it is the right one, the caller checks.
        """
        pool = (name or "").partition(".")[2].partition(".")[0]
        context = self._servers.get(pool) or next(iter(self._servers.values()), None)
        if context is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = context
        return None

    def _take(self, membership: Membership, place: Path) -> None:
        authorities = place / _AUTHORITIES
        client = _context(ssl.PROTOCOL_TLS_CLIENT)
        server = _context(ssl.PROTOCOL_TLS_SERVER)
        server.verify_mode = ssl.CERT_OPTIONAL
        try:
            for context in (client, server):
                context.load_verify_locations(authorities)
                context.load_cert_chain(place / _CERTIFICATE, self._key)
        except (OSError, ssl.SSLError) as error:
            raise Invalid(
                f"{place} does not fit {self._key}: {error}",
                field="data",
                expected="certificates of this program; without that folder it joins anew",
            ) from error
        name = membership.pool
        self._found[name] = membership
        self._parties.clear()  # who was believed by an authority that is gone is so no more
        self._clients[name], self._servers[name] = client, server


def unproven() -> ssl.SSLContext:
    """To ask a pool's authority for its certificate with, which a join token then proves."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def believing(authority: x509.Certificate) -> ssl.SSLContext:
    """To call programs of that pool with by one who has no certificate yet."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=certificates.pem(authority).decode())
    return context


def issued(
    authorities: tuple[x509.Certificate, ...], certificate: x509.Certificate, wanted: Party
) -> Membership:
    """What we were given, if it is what we asked for: that the scheduler of one pool makes nobody a
    member of another one, in place of what that one's gave. Raises Denied, Invalid.
    """
    der = certificate.public_bytes(serialization.Encoding.DER)
    strange = any(certificates.pool_of(one) != wanted.pool for one in authorities)
    if strange or certificates.party(der, authorities) != wanted:
        raise Denied("the certificate that was given is not the one that was asked for")
    return Membership(authorities, certificate)


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # who comes again shows its certificate again: it may be over now
    return context


def _read(place: Path) -> Membership:
    try:
        bundle = (place / _AUTHORITIES).read_bytes()
        certificate = certificates.read((place / _CERTIFICATE).read_bytes())
        parts = [part + _END for part in bundle.split(_END) if part.strip()]
        authorities = tuple(certificates.read(part) for part in parts)
    except OSError as error:
        raise Invalid(f"{place}: {error.strerror}", field="data", expected="readable") from error
    if not authorities:
        raise Invalid(f"{place} names no authority", field="data", expected="one at least")
    return Membership(authorities, certificate)
