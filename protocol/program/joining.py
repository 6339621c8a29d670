"""How a program becomes one of a pool, and stays it: it asks the pool's scheduler for a
certificate, and for another one before that ends.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from protocol import wire
from protocol.errors import Busy, Denied, Invalid, PoolError
from protocol.model.messages import Admittance, Joining, Renewal
from protocol.remote.connecting import Secured, unavailable
from protocol.remote.exchange import ANSWER, Exchange, read
from protocol.remote.guard import Guard
from protocol.trust import certificates
from protocol.trust.certificates import NODE, SCHEDULER
from protocol.trust.membership import Membership, Memberships, believing, issued, unproven
from protocol.trust.token import JoinToken

log = logging.getLogger(__name__)

AUTHORITY_PATH = "/pool/v1/authority"
"""Where a scheduler shows its pool's authorities, to anybody."""
JOIN_PATH = "/pool/v1/join"
RENEW_PATH = "/pool/v1/renew"
_FIRST, _MOST = 1.0, 60.0  # seconds between tries to join
_NO_NAME = "authority.invalid"
"""What is looked for where no name is known yet."""
_SHOWN = 1 << 20  # bytes that the certificates of all authorities may have


class Shown(Struct, frozen=True):
    """What whoever answers shows to anybody; nothing of it is proven."""

    authorities: tuple[x509.Certificate, ...]
    date: float | None  # by its clock, seconds since the epoch; whole ones


class Applicant:
    """A program that asks to be of a pool, under its key."""

    def __init__(
        self,
        key: Ed25519PrivateKey,
        role: str,
        name: str,
        guard: Callable[[str], Guard | None] = lambda url: None,
    ) -> None:
        """`guard`: which addresses may be called for a URL; None: wherever it leads."""
        self._guard = guard
        self.id = certificates.fingerprint(key.public_key())
        self._key = key
        self._role = role
        self._name = name

    async def join(self, url: str, token: JoinToken) -> Membership:
        """What the scheduler of the pool gives us that listens at this URL (https). Raises Denied
        (it is not of the token's pool, or does not want us), Busy (not yet), Unavailable, Invalid.
        """
        authority = named_by(token, url, await shown(url, self._guard(url)))
        pool = certificates.pool_of(authority)
        context = believing(authority)
        name = certificates.server_name(SCHEDULER, pool)
        asked = Joining(token.secret, certificates.ask(self._key), self._role, self._name)
        return await self._asked(url, Secured(lambda: context, name), JOIN_PATH, asked, pool)

    async def renew(self, url: str, memberships: Memberships, pool: str) -> Membership:
        """The same for a member. Raises as `join`."""
        name = certificates.server_name(SCHEDULER, pool)
        secured = Secured(lambda: memberships.client(pool), name)
        asked = Renewal(certificates.ask(self._key))
        return await self._asked(url, secured, RENEW_PATH, asked, pool)

    async def _asked(
        self, url: str, secured: Secured, path: str, asked: Joining | Renewal, pool: str
    ) -> Membership:
        exchange = Exchange(url, {}, ANSWER, secured, self._guard(url))
        try:
            given = await exchange.post(path, asked, Admittance)
        finally:
            await exchange.close()
        authorities = tuple(certificates.read(one) for one in given.authorities)
        wanted = certificates.Party(self.id, self._role, pool)
        return issued(authorities, certificates.read(given.certificate), wanted)


async def shown(url: str, guard: Guard | None = None) -> Shown:
    """What a scheduler's listener for its pool (https) shows to anybody. Raises Denied (an address
    that is not called), Unavailable, Invalid.
    """
    context = unproven()
    exchange = Exchange(url, {}, ANSWER, Secured(lambda: context, _NO_NAME), guard)
    try:
        async with asyncio.timeout(ANSWER), await exchange.open(AUTHORITY_PATH, {}, {}) as answer:
            body, date = await read(answer, _SHOWN), answer.headers.get("Date", "")
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise unavailable(url, error) from error
    finally:
        await exchange.close()
    given = wire.decode(body, tuple[bytes, ...], wire.MSGPACK, limit=_SHOWN)
    return Shown(tuple(certificates.read(one) for one in given), _moment(date))


def _moment(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def named_by(token: JoinToken, url: str, seen: Shown) -> x509.Certificate:
    """The authority that the token names, of those that are shown at a URL. Raises Denied."""
    for certificate in seen.authorities:
        if certificates.digest(certificate) == token.authority:
            return certificate
    raise Denied(f"what answers at {url} is not of the pool that the token is for")


async def check_secret(url: str, authority: x509.Certificate, token: JoinToken) -> None:
    """Whether the token still admits: a scheduler that proves to be of that authority is asked for
    a certificate without saying for which key, so that it refuses in any case, and nothing comes
    of it. Raises Denied where it does not, Unavailable.
    """
    context = believing(authority)
    name = certificates.server_name(SCHEDULER, certificates.pool_of(authority))
    exchange = Exchange(url, {}, ANSWER, Secured(lambda: context, name))
    try:
        await exchange.post(JOIN_PATH, Joining(token.secret, b"", NODE, "doctor"), Admittance)
    except Invalid as error:
        if error.field != "request":
            raise
    finally:
        await exchange.close()


async def keep_joined(
    applicant: Applicant,
    memberships: Memberships,
    pool: str,
    urls: Callable[[], tuple[str, ...]],
    every: float,
    clock: Callable[[], float] = time.time,
) -> None:
    """Ask again for a certificate, and for what to believe, each `every` seconds, wherever the
    scheduler may be then: anybody can say that it is elsewhere, so that each place is tried.
    """
    said = ""
    while True:
        # Not all at once where many were started together.
        await asyncio.sleep(every * random.uniform(0.8, 1.0))
        places = urls()
        words = ""
        for place in random.sample(places, len(places)):
            try:
                memberships.put(await applicant.renew(place, memberships, pool))
            except (PoolError, OSError) as error:
                left = certificates.ends(memberships.all()[pool].certificate) - clock()
                days = f"{left / 86400:.1f} days"
                words = f"the certificate could not be renewed, it has {days}: {error}"
            else:
                words = ""
                break
        if words and words != said:
            log.warning("%s", words)
        said = words


async def keep_asking(
    applicant: Applicant,
    memberships: Memberships,
    token: JoinToken,
    urls: Callable[[], tuple[str, ...]],
    found: "asyncio.Event",
) -> tuple[str, Membership]:
    """Ask every scheduler that is found, until one lets us in: (its URL, what it gave us). `found`
    is set when there is another one. Raises Denied where one of the token's pool refuses us.
    """
    pause = _FIRST
    said: set[str] = set()
    while True:
        for url in urls():
            try:
                membership = await applicant.join(url, token)
                memberships.put(membership)
                return url, membership
            except Busy as error:
                words, pause = error.detail, min(pause, error.retry_after)
            except (PoolError, OSError) as error:
                words = f"{url} does not let us in: {error}"
            if words not in said:
                said.add(words)
                log.warning("%s", words)
        found.clear()
        try:
            async with asyncio.timeout(pause):
                await found.wait()
        except TimeoutError:
            pause = min(pause * 2, _MOST)
