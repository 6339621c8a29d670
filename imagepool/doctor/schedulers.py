"""Whether a scheduler can be reached, proves to be of the pool that is meant, and lets us in."""

import asyncio
from collections.abc import Iterator
from functools import partial

from cryptography import x509
from msgspec import Struct
from msgspec.structs import replace

from imagepool.cli.words import age
from imagepool.doctor.finding import Finding, Status, Subject, fail, ok, warn
from imagepool.doctor.sockets import lock_holder
from protocol import VERSION
from protocol.errors import Busy, Denied, Invalid, PoolError, Unavailable, Unreachable
from protocol.model.messages import API_VERSION, Report
from protocol.model.urls import read_url
from protocol.ports.service import LOCAL
from protocol.program import joining
from protocol.program.beacon import urls
from protocol.program.joining import Shown
from protocol.remote.client import HttpService
from protocol.remote.connecting import Secured
from protocol.trust import certificates, token
from protocol.trust.certificates import SCHEDULER, SKEW, server_name
from protocol.trust.membership import Memberships
from protocol.trust.token import JoinToken

_MOST = 16  # URLs that are tried
_CONNECT = 2.0  # seconds
_CLOCKS_DIFFER = 60.0  # seconds; a date is told in whole ones, and answers take a while
_NEW_TOKEN = "paste what `imagepool invite` prints there now"


class Met(Struct, frozen=True):
    """What was found at one URL."""

    url: str
    findings: tuple[Finding, ...]
    seen: Shown | None = None
    report: Report | None = None

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong there."""
        return all(finding.status is Status.OK for finding in self.findings)


async def schedulers(subject: Subject) -> tuple[Finding, ...]:
    """Of a node: at the URLs that are named, else wherever mDNS heard one."""
    if not subject.is_node:
        return ()
    try:
        places = await _places(subject)
    except Invalid as error:
        return (fail("scheduler", error.detail, f"expected: {error.expected}"),)
    if not places:
        return _nowhere(subject)
    met = await asyncio.gather(*(_meet(subject, url) for url in places[:_MOST]))
    if not (subject.url or subject.settings.schedulers):
        met = _of_strangers(met)
    return (
        *(finding for one in met for finding in one.findings),
        *_clock(subject, [one for one in met if one.seen or one.report]),
        *_versions([one for one in met if one.report]),
    )


async def _places(subject: Subject) -> tuple[str, ...]:
    """Origins of URLs: whatever else somebody wrote into one is not repeated. Raises Invalid."""
    named = (*((subject.url,) if subject.url else ()), *subject.settings.schedulers)
    if not named:
        heard = await subject.lan.heard(subject.host)
        named = tuple(
            url
            for beacon in heard.beacons
            if beacon.role.startswith("scheduler")
            for url in urls(beacon, member=bool(beacon.pool_port and subject.wants_pool))
        )
    return tuple(dict.fromkeys(read_url(url, "url").origin for url in named))


def _of_strangers(met: list[Met]) -> list[Met]:
    """Of what mDNS found, anybody's: where one is good, the others are in nobody's way, and their
    clocks are their own.
    """
    if not any(one.is_good for one in met):
        return met
    return [one if one.is_good else Met(one.url, tuple(map(_beside, one.findings))) for one in met]


def _beside(finding: Finding) -> Finding:
    failed = finding.status is Status.FAIL
    return replace(finding, status=Status.WARN) if failed else finding


def _nowhere(subject: Subject) -> tuple[Finding, ...]:
    words = "none is named, and none was found by mDNS"
    if not subject.wants_pool:
        return (warn("scheduler", words, "start one on this machine, or name one: --url URL"),)
    mend = "--scheduler https://ADDRESS:8081, with the address of the scheduler's machine"
    return (fail("scheduler", words, mend),)


async def _meet(subject: Subject, url: str) -> Met:
    try:
        if url.startswith("https:"):
            return await _meet_member(subject, url)
        return await _meet_anybody(subject, url)
    except Unavailable as error:
        return Met(url, (await _unanswered(url, error),))
    except PoolError as error:
        expected = error.expected or "the URL of a scheduler's pool_listen, such as port 8081"
        return Met(url, (fail("scheduler", f"{url}: {error.detail}", f"expected: {expected}"),))


async def _unanswered(url: str, error: Unavailable) -> Finding:
    """Where no answer came that can be understood: how far one gets."""
    name, member = "scheduler", url.startswith("https:")
    ports = "members reach a scheduler at its pool_listen, usually https:// and port 8081"
    try:
        place = read_url(url, "url")
        async with asyncio.timeout(_CONNECT):
            _, writer = await asyncio.open_connection(place.host, place.port)
        writer.close()
    except TimeoutError:
        mend = "let its port through the firewall there, and see that both are on one network"
        return fail(name, error.detail, mend)
    except OSError:
        mend = "start the scheduler there, with --listen ADDRESS:8080; members reach it at 8081"
        return fail(name, error.detail, mend)
    if not member:
        return fail(name, error.detail, f"clients reach one at http:// and port 8080; {ports}")
    if isinstance(error, Unreachable):
        return fail(name, f"{url} takes connections, and speaks no TLS that fits", ports)
    return fail(name, error.detail, ports)


async def _meet_anybody(subject: Subject, url: str) -> Met:
    """At a listener for clients: nothing is proven there."""
    client = HttpService(url)
    try:
        report = await client.status(LOCAL)
    finally:
        await client.close()
    words = f"{url} answers: {report.role} {_named(report)}"
    if report.role != SCHEDULER:
        remedy = "the URL of a scheduler: its port for clients is 8080, for members 8081"
        return Met(url, (fail("scheduler", f"{words}; that is no scheduler", remedy),))
    if subject.wants_pool:
        mend = "https://ADDRESS:8081, where it serves members"
        words += "; nobody proves anything there, and nobody joins there"
        in_vain = warn("scheduler", words, f"--url {mend}, tells more")
        if any(named.startswith(url) for named in subject.settings.schedulers):
            in_vain = fail("scheduler", words, f"--scheduler {mend}")
        return Met(url, (in_vain,), None, report)
    return Met(url, (ok("scheduler", words),), None, report)


async def _meet_member(subject: Subject, url: str) -> Met:
    """At a listener for the pool. Raises PoolError where it does not answer."""
    seen = await joining.shown(url)
    memberships = subject.memberships
    wanted = _token(subject)
    pools = {certificates.pool_of(one) for one in seen.authorities}
    pool = next((one for one in (memberships.all() if memberships else ()) if one in pools), "")
    if memberships and pool:
        return await _meet_own(memberships, pool, url, seen)
    if wanted is None:
        words = f"{url} is of the pool {', '.join(sorted(pools)) or '?'}, which this node is not in"
        mend = f"imagepool node --join TOKEN: {_NEW_TOKEN}"
        return Met(url, (fail("scheduler", words, mend),), seen)
    try:
        authority = joining.named_by(wanted, url, seen)
    except Denied as error:
        return Met(url, (fail("scheduler", error.detail, _NEW_TOKEN),), seen)
    return await _meet_new(subject, authority, wanted, Met(url, (), seen))


def _token(subject: Subject) -> JoinToken | None:
    try:
        return token.read(subject.settings.join) if subject.settings.join else None
    except Invalid:
        return None


async def _meet_own(memberships: Memberships, pool: str, url: str, seen: Shown) -> Met:
    """One of a pool that we are in."""
    secured = Secured(partial(memberships.client, pool), server_name(SCHEDULER, pool))
    try:
        report = await _status(url, secured)
    except Denied as error:
        mend = "there: imagepool admit NODE, if that was a mistake; then start the node"
        return Met(url, (fail("scheduler", f"{url}: {error.detail}", mend),), seen)
    except Unavailable as error:
        mend = "set the clocks of both machines; where they are right, join the pool anew"
        return Met(url, (fail("scheduler", error.detail, mend),), seen)
    words = f"{url} proves to be {_named(report)} of our pool {pool}, and takes us for a member"
    return Met(url, (ok("scheduler", words),), seen, report)


async def _meet_new(
    subject: Subject, authority: x509.Certificate, wanted: JoinToken, there: Met
) -> Met:
    """One of the pool that the token is for. Who has not joined is told no more of it."""
    url, pool = there.url, certificates.pool_of(authority)
    try:
        await joining.check_secret(url, authority, wanted)
    except Denied as error:
        finding = fail("join token", f"{url}: {error.detail}", _NEW_TOKEN)
        return replace(there, findings=(finding,))
    except Busy as error:
        finding = warn("scheduler", f"{url}: {error.detail}", "try again soon")
        return replace(there, findings=(finding,))
    except Unavailable as error:
        finding = fail("scheduler", error.detail, "set the clocks of both machines")
        return replace(there, findings=(finding,))
    words = f"{url} proves to be the scheduler of the token's pool {pool}; the token admits"
    return replace(there, findings=(_admitted(subject, words),))


def _admitted(subject: Subject, words: str) -> Finding:
    """A node that runs would be a member by now."""
    if lock_holder(subject.folder / "lock") is None:
        return ok("scheduler", words)
    words += "; yet the node, which runs, is no member"
    mend = "there, where its admission is `approve`: imagepool admit NODE; else see the node's log"
    return warn("scheduler", words, mend)


def _named(report: Report) -> str:
    return f"{report.name[:64]} ({report.version[:64]})"


async def _status(url: str, secured: Secured) -> Report:
    client = HttpService(url, secured=secured)
    try:
        return await client.status(LOCAL)
    finally:
        await client.close()


def _clock(subject: Subject, met: list[Met]) -> Iterator[Finding]:
    """Of this machine and of each scheduler's."""
    for one in met:
        theirs = one.report.clock if one.report else one.seen.date if one.seen else None
        if not theirs:
            continue
        ahead = subject.now() - theirs
        if abs(ahead) < _CLOCKS_DIFFER:
            yield ok("clock", f"as that of {one.url}")
            continue
        words = f"{age(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} that of {one.url}"
        mend = "on the machine that is wrong: timedatectl set-ntp true"
        if abs(ahead) < SKEW:
            yield warn("clock", f"{words}; certificates bear {age(SKEW)}", mend)
        else:
            yield fail("clock", f"{words}: its certificates do not hold here", mend)


def _versions(met: list[Met]) -> Iterator[Finding]:
    for one in met:
        assert one.report is not None
        theirs, name = one.report, f"version {VERSION}"
        mend = "install the same imagepool on both machines"
        if theirs.api != API_VERSION:
            words = f"{name}; {one.url} is {theirs.version} and speaks another API, {theirs.api}"
            yield fail("version", words, mend)
        elif theirs.version != VERSION:
            yield warn("version", f"{name}; {one.url} is {theirs.version}", mend)
        else:
            yield ok("version", f"{name}, as {one.url}")
