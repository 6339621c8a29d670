"""What a program proves by who it is: its key, its certificates, the token that it is to join by,
and, of a scheduler, its pool's authority.
"""

import stat
from collections.abc import Iterator

from imagepool.cli.words import age
from imagepool.doctor.finding import Finding, Subject, fail, in_thread, ok, warn
from protocol.errors import Conflict, Invalid, PoolError
from protocol.program.identity import KEY, key_of
from protocol.program.settings import host_and_port, is_loopback
from protocol.trust import certificates, token
from protocol.trust.certificates import fingerprint
from protocol.trust.membership import FOLDER, Membership, Memberships
from scheduler.pool import authority

_SHOWN = 16  # characters of an id or a digest that tell it apart
_REJOIN = "imagepool node --join TOKEN, with what `imagepool invite` prints on the scheduler"


async def papers(subject: Subject) -> tuple[Finding, ...]:
    """All of them."""
    return await in_thread(lambda: tuple(_papers(subject)))


def _papers(subject: Subject) -> Iterator[Finding]:
    yield _key(subject)
    if subject.is_node and subject.settings.join:
        yield _token(subject.settings.join)
    if not subject.is_node:
        yield from _authority(subject)
    yield from _certificates(subject)


def _key(subject: Subject) -> Finding:
    path = subject.folder / KEY
    try:
        mode = path.stat().st_mode
        who = fingerprint(key_of(subject.folder).public_key())
    except FileNotFoundError:
        return ok("key", "there is none yet: it is made at the first start")
    except OSError as error:
        words = f"{path} cannot be read: {error.strerror}"
        return fail("key", words, "run this, and the program, as the owner of that file")
    except Conflict as error:
        return fail(
            "key",
            error.detail,
            f"put the key back from a backup, or remove {path}: then"
            " it is another program, and joins anew",
        )
    if stat.S_IMODE(mode) & 0o077:
        words = f"{path} can be used by others (mode {stat.S_IMODE(mode):o})"
        return fail("key", words, f"chmod 600 {path}")
    return ok("key", f"this program is {who[:_SHOWN]}")


def _token(text: str) -> Finding:
    try:
        read = token.read(text)
    except Invalid as error:
        words = f"what was given as join token is none; expected: {error.expected}"
        return fail("join token", words, "copy all of what `imagepool invite` prints there")
    return ok("join token", f"whole; of the pool with the authority {read.authority[:_SHOWN]}")


def _authority(subject: Subject) -> Iterator[Finding]:
    """That it is there was decided by the first start; here it is only read."""
    name = "authority"
    if not subject.wants_pool:
        words = "none is needed: only programs of this machine reach it, and these prove nothing"
        yield ok(name, words)
        return
    if not (subject.folder / authority.FOLDER).exists():
        yield ok(name, "there is none yet: it is made at the first start")
        return
    try:
        kept = authority.Authority(subject.folder, subject.settings.certificate_life, subject.now)
    except (PoolError, OSError) as error:
        yield fail(name, str(error), getattr(error, "expected", "") or "run this as its owner")
        return
    makes, *others = kept.certificates
    left = certificates.ends(makes) - subject.now()
    words = f"pool {kept.pool}, authority {certificates.digest(makes)[:_SHOWN]}, {_left(left)}"
    if left <= 0:
        yield fail(name, words, "imagepool authority --replace; members then join anew")
    elif others:
        yield warn(
            name, f"{words}; it is being replaced", "imagepool authority says by whom it waits"
        )
    else:
        yield ok(name, words)


def _certificates(subject: Subject) -> Iterator[Finding]:
    name = "certificate"
    try:
        found = Memberships(subject.folder, subject.folder / KEY)
    except Invalid as error:
        remedy = f"remove {subject.folder / FOLDER}, then {_REJOIN}"
        yield fail(name, f"{error.detail}", remedy if subject.is_node else error.expected)
        return
    except OSError as error:
        yield fail(name, f"{error.filename}: {error.strerror}", "run this as its owner")
        return
    for membership in found.all().values():
        yield _certificate(subject, membership)
    if subject.is_node and not found:
        yield _none(subject)


def _certificate(subject: Subject, membership: Membership) -> Finding:
    name, now, mine = "certificate", subject.now(), membership.certificate
    begins, ends = mine.not_valid_before_utc.timestamp(), certificates.ends(mine)
    words = f"member of the pool {membership.pool}, {_left(ends - now)}"
    if now < begins:
        early = f"member of the pool {membership.pool}, in {age(begins - now)}: a clock is wrong"
        return fail(name, early, "set this machine's clock: timedatectl set-ntp true")
    if now >= ends:
        place = subject.folder / FOLDER / membership.pool
        anew = f"rm -r {place}, then {_REJOIN}"
        renewed = anew if subject.is_node else "start the scheduler: it renews its own"
        return fail(name, words, f"check this machine's clock; where it is right: {renewed}")
    if certificates.is_due(mine, now):
        renewed = "the program renews it while it runs and its scheduler answers: start it"
        return warn(name, f"{words}; it should have been renewed", renewed)
    return ok(name, words)


def _left(seconds: float) -> str:
    if seconds <= 0:
        return f"ended {age(-seconds)} ago"
    return f"good for {age(seconds)}"


def _none(subject: Subject) -> Finding:
    """A node that has not joined."""
    if subject.settings.join:
        return ok("certificate", "none yet: the scheduler gives one when the node joins")
    if is_loopback(host_and_port(subject.settings.listen)[0]):
        words = "of no pool: schedulers on this machine find it, and no others"
        return warn("certificate", words, f"to join one: {_REJOIN}")
    return fail("certificate", "of no pool: a scheduler elsewhere does not believe it", _REJOIN)
