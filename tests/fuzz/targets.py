"""What is fuzzed: for each parser of what strangers send, a function of the bytes.

A target answers with nothing, or raises one of the project's own errors (`PoolError`), which is how
the parsers refuse; whatever else comes out of it is a bug. Where a value was read, it also checks
what must be true of it.
"""

import asyncio
import base64
import functools
import hashlib
import ipaddress
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID
from zeroconf import ServiceInfo

from protocol import wire
from protocol.api.image_creator import handlers, specification
from protocol.api.native import multipart
from protocol.errors import Invalid
from protocol.model import messages
from protocol.model.checks import check_request, check_url
from protocol.model.request import BuildRequest, Order
from protocol.program import beacon
from protocol.trust import certificates, token

Target = Callable[[bytes], None]

_SENT = (
    messages.Forwarded,
    messages.Report,
    messages.Acknowledgement,
    messages.Cancellation,
    messages.Joining,
    messages.Renewal,
    messages.Admittance,
    messages.Roster,
    BuildRequest,
    Order,
    specification.Specification,
    messages.BuildPage,
)
"""What a body may have to be; the first byte of an input chooses."""


def _decoded(data: bytes, media_type: str) -> None:
    kind: Any = _SENT[data[0] % len(_SENT)] if data else BuildRequest
    value = wire.decode(data[1:], kind, media_type)
    assert wire.decode(wire.encode(value, media_type), kind, media_type) == value


def json(data: bytes) -> None:
    """The wire decoder on JSON; what was read is written and read again."""
    _decoded(data, wire.JSON)


def msgpack(data: bytes) -> None:
    """The wire decoder on msgpack, likewise."""
    _decoded(data, wire.MSGPACK)


def record(data: bytes) -> None:
    """A TXT record as it comes from the network: what is believed of it is plain text."""
    port = int.from_bytes(data[:2]) if len(data) > 2 else 8080
    info = ServiceInfo(
        beacon.SERVICE_TYPE, f"x.{beacon.SERVICE_TYPE}", port=port, properties=data[2:]
    )
    read = beacon.read(info.properties, info.port, ("127.0.0.1",))
    if read is None:
        raise Invalid("none of ours")
    assert all(text.isprintable() for text in (read.id, read.boot, read.pool, read.name))
    assert read.id.isalnum()
    text = {name.encode(): value.encode() for name, value in beacon.properties(read).items()}
    assert beacon.read(dict(text), read.port, read.addresses) == read
    assert all(ipaddress.ip_address(address) for address in read.addresses)
    assert beacon.instance_name(read).endswith(beacon.SERVICE_TYPE)


class _Blobs:
    """Where a form's files go: nowhere."""

    async def upload(self, caller: Any, stream: AsyncIterator[bytes], **_: Any) -> str:
        """The digest of what came."""
        sha256 = hashlib.sha256()
        async for piece in stream:
            sha256.update(piece)
        return sha256.hexdigest()


def form(data: bytes) -> None:
    """A create as multipart/form-data, the boundary `b`, cut into pieces as its first byte says."""
    order = _LOOP.run_until_complete(_form(data[1:], data[0] + 1 if data else 1))
    check_request(order.request, ("*",))


_LOOP = asyncio.new_event_loop()


async def _form(body: bytes, piece: int) -> Order:
    context = SimpleNamespace(extras={"blobs": _Blobs()})
    limits = SimpleNamespace(body_limit=1 << 16)
    handler: Any = SimpleNamespace(context=context, limits=limits, caller=None)
    read = multipart.Form(handler, b"b")
    try:
        for at in range(0, len(body), piece):
            await read.take(body[at : at + piece])
        asker: Any = SimpleNamespace(_form=read, _refusal=None, read=wire.decode)
        return multipart.Multipart.order(asker)
    finally:
        await read.break_off()


def create(data: bytes) -> None:
    """A documented create as curl sends it: as a form, or JSON under a form's name."""
    handler: Any = SimpleNamespace(
        get_query_argument=lambda *_, **__: None,
        media_type=lambda: handlers.FORM,
        whole_body=lambda: data,
        read=wire.decode,
        _form_field=lambda body: handlers.Family._form_field(handler, body),
    )
    asked = handlers.Family.specification(handler)
    check_url(asked.redirect, "redirect")
    request = specification.to_request(asked, ("*",))
    assert len(request.recipe.commands) == len(asked.commands)
    location = specification.redirect_to(asked.redirect, "http://127.0.0.1:1/status/x")
    assert location.isascii()
    assert location.isprintable()


def order(data: bytes) -> None:
    """A create of the native API: whatever passes the checks is sent on and read again."""
    read = wire.decode(data, Order)
    check_request(read.request, ("*",), exchanges=True)
    packed = wire.encode(read.request, wire.MSGPACK)
    assert wire.decode(packed, BuildRequest, wire.MSGPACK) == read.request


def join_token(data: bytes) -> None:
    """A pasted token, its check made right where the first byte is odd; it is written as it was
    read.
    """
    text = data[1:].decode("utf-8", "surrogateescape")
    if data[:1] and data[0] % 2:
        said = data[1:49].ljust(48, b"\0")
        check = hashlib.sha256(b"imagepool join token\n" + said).digest()[:2]
        text = token.PREFIX + base64.b32encode(said + check).decode().lower()
    assert str(token.read(text)) == text.strip()


@functools.cache
def _pool() -> tuple[Ed25519PrivateKey, Ed25519PrivateKey, x509.Certificate, bytes]:
    """The authority's key, a node's, the authority, the node's certificate."""
    signs = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"a")
    key = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"n")
    authority = certificates.make_authority(signs, "0123456789abcdef", 1e9)
    made = certificates.issue(key.public_key(), "node", authority, signs, 1e9, 86400.0)
    return signs, key, authority, made.public_bytes(Encoding.DER)


def party(data: bytes) -> None:
    """A certificate that a peer shows; under an odd first byte one that the authority has signed,
    whose names are what the other bytes say.
    """
    signs, key, authority, own = _pool()
    der = data[1:] or own
    if data[:1] and data[0] % 2:
        der = _signed(signs, key, authority, data[1:])
    who = certificates.party(der, (authority,))
    assert who.role in (certificates.NODE, certificates.SCHEDULER)
    assert who.pool == certificates.pool_of(authority)


def _signed(
    signs: Ed25519PrivateKey, key: Ed25519PrivateKey, authority: x509.Certificate, names: bytes
) -> bytes:
    """A certificate of the pool with these bytes where its names belong."""
    own = x509.load_der_x509_certificate(_pool()[3])
    said = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, names)
    made = x509.CertificateBuilder(
        issuer_name=authority.subject,
        subject_name=own.subject,
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=own.not_valid_before_utc.replace(tzinfo=None),
        not_valid_after=own.not_valid_after_utc.replace(tzinfo=None),
    )
    return made.add_extension(said, critical=False).sign(signs, None).public_bytes(Encoding.DER)


def joining(data: bytes) -> None:
    """A join request: its message, and the request for a certificate in it."""
    asked = wire.decode(data, messages.Joining, wire.MSGPACK)
    key = certificates.asked(asked.request)
    assert len(certificates.fingerprint(key)) == 40


def signing_request(data: bytes) -> None:
    """A request for a certificate, in PEM, or as DER that is made PEM under an odd first byte."""
    request = data[1:]
    if data[:1] and data[0] % 2:
        lines = base64.encodebytes(request).decode()
        request = (
            f"-----BEGIN CERTIFICATE REQUEST-----\n{lines}-----END CERTIFICATE REQUEST-----\n"
        ).encode()
    certificates.asked(request)


def pem(data: bytes) -> None:
    """A certificate in PEM, such as a join brings."""
    read = certificates.read(data)
    certificates.pool_of(read)
    assert msgspec.json.encode(certificates.digest(read))


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        json,
        msgpack,
        record,
        form,
        create,
        order,
        join_token,
        party,
        joining,
        signing_request,
        pem,
    )
}
