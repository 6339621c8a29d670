"""The certificates of a pool: what is in them, and what is believed of one.

A program's certificate has two names. `ID.POOL.imagepool` says which program it is, by the
fingerprint of its key; `ROLE.POOL.imagepool` what it is in this pool. A pool's id is drawn with its
first authority, and stands in the subject of every one: authorities change, and a program may be of
several pools.
"""

import datetime
import hashlib
import re
from collections.abc import Iterable
from datetime import UTC

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from protocol.errors import Denied, Invalid

NODE, SCHEDULER = "node", "scheduler"
"""What a program can be in a pool."""
SKEW = 2 * 3600.0
"""Seconds that a certificate is valid before it was made: clocks differ."""
AUTHORITY_VALIDITY = 20 * 365 * 86400.0
"""Seconds that an authority's own certificate is valid."""
REQUEST_LIMIT = 4096
"""Bytes that a request for a certificate may have."""
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)  # what comes of bytes that strangers wrote; most are read only when they are asked for
_SUFFIX = "imagepool"
_AUTHORITY = re.compile(r"imagepool pool ([0-9a-f]{16})")
_NAME = re.compile(rf"([0-9a-f]{{40}}|{NODE}|{SCHEDULER})\.([0-9a-f]{{16}})\.{_SUFFIX}")


class Party(Struct, frozen=True):
    """Who is at the other end of a connection, by certificate."""

    id: str
    role: str  # "node" or "scheduler"
    pool: str  # its id


def fingerprint(key: Ed25519PublicKey) -> str:
    """The id of the program whose key this is: the first 160 bits of its SHA-256, hex."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:40]


def digest(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate, hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def pool_of(authority: x509.Certificate) -> str:
    """The id of the pool that this is an authority of. Raises Invalid for another certificate."""
    try:
        named = authority.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except _UNREADABLE:
        named = []
    match = _AUTHORITY.fullmatch(str(named[0].value)) if len(named) == 1 else None
    if match is None:
        raise Invalid(
            "that is no certificate of an authority", expected="one of a pool's authority"
        )
    return match[1]


def server_name(who: str, pool: str) -> str:
    """What a connection to that program - an id, or a role for any program of it - must find in the
    certificate.
    """
    return f"{who}.{pool}.{_SUFFIX}"


def pem(certificate: x509.Certificate) -> bytes:
    """As it stands in files and messages."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def read(data: bytes) -> x509.Certificate:
    """One certificate in PEM. Raises Invalid."""
    try:
        return x509.load_pem_x509_certificate(data)
    except _UNREADABLE as error:
        raise Invalid("that is no certificate", expected="one in PEM") from error


def make_authority(key: Ed25519PrivateKey, pool: str, now: float) -> x509.Certificate:
    """The certificate of a new authority for the pool of this id, 16 hex digits."""
    name = _subject(f"imagepool pool {pool}")
    made = _builder(name, name, key.public_key(), now, AUTHORITY_VALIDITY)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    made = made.add_extension(_usage(signs=True), critical=True)
    made = made.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    return made.sign(key, None)


def ask(key: Ed25519PrivateKey) -> bytes:
    """A request for a certificate, in PEM: the key, and the proof that we have it."""
    made = x509.CertificateSigningRequestBuilder().subject_name(
        _subject(fingerprint(key.public_key()))
    )
    return made.sign(key, None).public_bytes(serialization.Encoding.PEM)


def asked(request: bytes) -> Ed25519PublicKey:
    """The key that a certificate is asked for. Nothing else that the request says counts. Raises
    Invalid.
    """
    expected = "a certificate signing request of an Ed25519 key, in PEM"
    if len(request) > REQUEST_LIMIT:
        raise Invalid("the request is too long", field="request", expected=expected)
    try:
        read = x509.load_pem_x509_csr(request)
        key = read.public_key()
        proven = read.is_signature_valid
    except _UNREADABLE as error:
        raise Invalid("the request cannot be read", field="request", expected=expected) from error
    if not isinstance(key, Ed25519PublicKey) or not proven:
        raise Invalid("the request does not prove its key", field="request", expected=expected)
    return key


def issue(
    key: Ed25519PublicKey,
    role: str,
    authority: x509.Certificate,
    signs: Ed25519PrivateKey,
    now: float,
    validity: float,
) -> x509.Certificate:
    """A program's certificate, valid for so many seconds; `signs`: the authority's key."""
    who, pool = fingerprint(key), pool_of(authority)
    made = _builder(_subject(who), authority.subject, key, now, validity)
    names = [x509.DNSName(server_name(name, pool)) for name in (who, role)]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    made = made.add_extension(_usage(signs=False), critical=True)
    made = made.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    made = made.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signs.public_key()), critical=False
    )
    return made.sign(signs, None)


def party(der: bytes, authorities: Iterable[x509.Certificate]) -> Party:
    """Who a certificate says that its owner is, which one of these authorities made. That it is
    valid now, and its owner's, TLS has seen. Raises Denied.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key()
        said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = said.value.get_values_for_type(x509.DNSName)
    except _UNREADABLE as error:
        raise Denied("its certificate is none of a pool's") from error
    read = [match.groups() for name in names if (match := _NAME.fullmatch(name))]
    ids = [who for who, _ in read if len(who) == 40]
    roles = [who for who, _ in read if len(who) != 40]
    pools = {pool for _, pool in read}
    if len(read) != len(names) or len(ids) != 1 or len(roles) != 1 or len(pools) != 1:
        raise Denied("its certificate is none of a pool's")
    if not isinstance(key, Ed25519PublicKey) or fingerprint(key) != ids[0]:
        raise Denied("its certificate names another program")
    for authority in authorities:
        if pool_of(authority) in pools and _made_by(certificate, authority):
            return Party(ids[0], roles[0], pools.pop())
    raise Denied("its certificate is one of another pool")


def _made_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (*_UNREADABLE, InvalidSignature):
        return False
    return True


def ends(certificate: x509.Certificate) -> float:
    """When it is valid no more, seconds since the epoch."""
    return certificate.not_valid_after_utc.timestamp()


def is_due(certificate: x509.Certificate, now: float) -> bool:
    """Whether it is time to renew: a third of its life is left."""
    begins = certificate.not_valid_before_utc.timestamp() + SKEW
    return now >= begins + (ends(certificate) - begins) * 2 / 3 or now < begins - SKEW


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Ed25519PublicKey, now: float, validity: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.fromtimestamp(now - SKEW, UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(now + validity, UTC))
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
