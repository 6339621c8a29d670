"""What the doctor says of schedulers: real ones, on loopback."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from imagepool.doctor import schedulers as module
from imagepool.doctor.finding import Finding, Status
from imagepool.doctor.lan import Heard, Lan
from imagepool.doctor.schedulers import schedulers
from protocol.program import identity
from protocol.program.beacon import Beacon
from protocol.program.identity import key_of
from protocol.program.joining import Applicant
from protocol.trust import token
from protocol.trust.certificates import NODE
from protocol.trust.membership import Memberships
from tests.doctor.subjects import HERE, a_subject, fails, is_ok, warns
from tests.programs import Program, a_node, a_scheduler

pytestmark = pytest.mark.gen_test(timeout=60)

HOUR = 3600.0


@asynccontextmanager
async def a_pool(folder: Path, **settings: Any) -> AsyncIterator[Program]:
    """A scheduler with a listener for members."""
    async with a_scheduler(folder, pool_listen=HERE, **settings) as scheduler:
        yield scheduler


def invited(scheduler: Program) -> str:
    """What its admin would paste."""
    text: str = scheduler.parts.door.invitation().token
    return text


async def look(
    folder: Path, scheduler: Program, join: str = "", **more: Any
) -> tuple[Finding, ...]:
    """At a node that is told where the scheduler is. No secret is in what is found."""
    chosen = {"schedulers": (scheduler.members_url,), "join": join, **more}
    findings = await schedulers(a_subject(folder / "node", **chosen))
    secret = token.read(invited(scheduler)).secret
    assert secret.hex() not in str(findings)
    assert not join or join not in str(findings)
    return findings


async def join(folder: Path, scheduler: Program) -> str:
    """The node becomes a member; its id."""
    place = folder / "node"
    place.mkdir(exist_ok=True)
    me = identity.load(place).id
    applicant = Applicant(key_of(place), NODE, "ada")
    given = await applicant.join(scheduler.members_url, token.read(invited(scheduler)))
    Memberships(place, place / identity.KEY).put(given)
    return me


async def test_a_right_token(tmp_path: Path) -> None:
    """It admits; nobody was admitted by that."""
    async with a_pool(tmp_path) as scheduler:
        findings = await look(tmp_path, scheduler, invited(scheduler))
        known = scheduler.parts.dispatcher.pool.known.all()
    assert "the token admits" in is_ok(findings, "scheduler")
    assert is_ok(findings, "clock") == f"as that of {scheduler.members_url}"
    assert not [finding for finding in findings if finding.check == "version"]
    assert not known
    assert not (tmp_path / "node").exists()


async def test_a_node_that_waits_for_a_yes(tmp_path: Path) -> None:
    """It runs, its token is right, and it is no member all the same."""
    async with a_pool(tmp_path, admission="approve") as scheduler:
        with identity.open_data(tmp_path / "node"):
            findings = await look(tmp_path, scheduler, invited(scheduler))
    found, remedy = warns(findings, "scheduler")
    assert "is no member" in found
    assert "imagepool admit NODE" in remedy


async def test_tokens_that_admit_nobody(tmp_path: Path) -> None:
    """One of another pool, an old one, none, and one that is no token."""
    async with a_pool(tmp_path) as scheduler, a_pool(tmp_path) as other:
        old = invited(scheduler)
        scheduler.parts.door.new_token()
        findings = await look(tmp_path, scheduler, invited(other))
        found, remedy = fails(findings, "scheduler")
        assert "is not of the pool that the token is for" in found
        assert "imagepool invite" in remedy
        found, remedy = fails(await look(tmp_path, scheduler, old), "join token")
        assert "is not, or not any more, one of this pool" in found
        assert "imagepool invite" in remedy
        for text in ("", "hello"):
            found, remedy = fails(await look(tmp_path, scheduler, text), "scheduler")
            assert scheduler.parts.membered.authority.pool in found
            assert "imagepool node --join TOKEN" in remedy


async def test_a_member(tmp_path: Path) -> None:
    """Until it is put out of the pool."""
    async with a_pool(tmp_path) as scheduler:
        me = await join(tmp_path, scheduler)
        findings = await look(tmp_path, scheduler)
        assert "takes us for a member" in is_ok(findings, "scheduler")
        await scheduler.parts.door.revoke(me, "sold")
        found, remedy = fails(await look(tmp_path, scheduler), "scheduler")
        assert "put out of the pool" in found
        assert "imagepool admit" in remedy


async def test_another_pools_certificate(tmp_path: Path) -> None:
    """A member of one pool, at the scheduler of another."""
    async with a_pool(tmp_path) as scheduler, a_pool(tmp_path) as other:
        await join(tmp_path, other)
        found, _ = fails(await look(tmp_path, scheduler), "scheduler")
        assert "which this node is not in" in found


async def test_a_certificate_that_has_ended(tmp_path: Path) -> None:
    """The scheduler does not take it."""
    async with a_pool(tmp_path) as scheduler:
        authority = scheduler.parts.membered.authority
        place = tmp_path / "node"
        place.mkdir()
        identity.load(place)
        clock, authority._clock = authority._clock, lambda: time.time() - 60 * 24 * HOUR
        await join(tmp_path, scheduler)
        authority._clock = clock
        found, remedy = fails(await look(tmp_path, scheduler), "scheduler")
        assert scheduler.members_url in found
        assert "join the pool anew" in remedy


@pytest.mark.parametrize(
    ("ahead", "how", "words"),
    [
        (HOUR + 60, warns, "1 h ahead of"),
        (-HOUR - 60, warns, "1 h behind"),
        (24 * HOUR + 60, fails, "1 d ahead of"),
        (-24 * HOUR - 60, fails, "1 d behind"),
    ],
)
async def test_clocks_that_differ(tmp_path: Path, ahead: float, how: Any, words: str) -> None:
    """Certificates bear an hour, and no day: where TLS gets nowhere, the date is told without."""
    now = time.time
    async with a_pool(tmp_path) as scheduler:
        for text in (invited(scheduler), ""):
            findings = await look(tmp_path, scheduler, text, clock=lambda: now() + ahead)
            found, remedy = how(findings, "clock")
            assert words in found
            assert "timedatectl" in remedy


async def test_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, another one, and another API, as a member sees it."""
    async with a_pool(tmp_path) as scheduler:
        await join(tmp_path, scheduler)
        is_ok(await look(tmp_path, scheduler), "version")
        monkeypatch.setattr(module, "VERSION", "99.0")
        findings = await look(tmp_path, scheduler)
        found, remedy = warns(findings, "version")
        assert found.startswith("version 99.0; https://")
        assert "the same imagepool" in remedy
        monkeypatch.setattr(module, "API_VERSION", 99)
        fails(await look(tmp_path, scheduler), "version")


async def test_nobody_is_there(tmp_path: Path) -> None:
    """Nothing listens; whoever listens says nothing; nobody is named."""
    async with a_pool(tmp_path) as scheduler:
        text = invited(scheduler)
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as gone:
            port = gone.sockets[0].getsockname()[1]
        url = f"https://127.0.0.1:{port}"
        found, remedy = fails(await look(tmp_path, scheduler, text, schedulers=(url,)), "scheduler")
        assert found.startswith(f"{url} cannot be reached")
        assert "start the scheduler there" in remedy
        found, remedy = fails(await look(tmp_path, scheduler, text, schedulers=()), "scheduler")
        assert found == "none is named, and none was found by mDNS"
        assert "--scheduler https://ADDRESS:8081" in remedy
        findings = await look(tmp_path, scheduler, schedulers=())
        assert "start one on this machine" in warns(findings, "scheduler")[1]


async def test_wrong_urls(tmp_path: Path) -> None:
    """The listener for clients under https, that for members under http, a node, no URL."""
    async with a_pool(tmp_path) as scheduler, a_node(tmp_path) as node:
        text = invited(scheduler)
        cases = (
            (scheduler.url.replace("http:", "https:"), fails, "speaks no TLS", "8081"),
            (scheduler.members_url.replace("https:", "http:"), fails, "", "https://"),
            (scheduler.url, warns, "nobody joins there", "--url https://ADDRESS:8081"),
            (node.url, fails, "that is no scheduler", "8080"),
            ("https://user:hush@127.0.0.1:1", fails, "", "without user"),
        )
        for url, how, words, mends in cases:
            subject = a_subject(tmp_path / "node", join=text, url=url)
            found, remedy = how(await schedulers(subject), "scheduler")
            assert words in found
            assert mends in remedy, remedy
            assert "hush" not in found + remedy
        findings = await look(tmp_path, scheduler, text, schedulers=(f"{scheduler.url}/",))
        assert "--scheduler https://ADDRESS:8081" in fails(findings, "scheduler")[1]
        alone = a_subject(tmp_path / "node", url=scheduler.url)
        is_ok(await schedulers(alone), "scheduler")


class Ears(Lan):
    """That heard these, and listens to nobody."""

    def __init__(self, *schedulers: Program) -> None:
        self._schedulers = schedulers

    async def heard(self, host: str) -> Heard:
        """Members of their pools, at loopback."""
        return Heard(
            tuple(
                Beacon(
                    id=one.id,
                    boot="b",
                    pool="default",
                    role="scheduler",
                    port=1,
                    addresses=("127.0.0.1",),
                    pool_port=int(one.members_url.rpartition(":")[2]),
                    pool_id=one.parts.membered.authority.pool,
                )
                for one in self._schedulers
            )
        )


async def test_strangers_are_in_nobodys_way(tmp_path: Path) -> None:
    """Others on the LAN are told of; they stand in the way only where nobody else is there."""
    async with a_pool(tmp_path) as scheduler, a_pool(tmp_path) as other:
        subject = a_subject(tmp_path / "node", join=invited(scheduler))
        both = await schedulers(replace(subject, lan=Ears(other, scheduler)))
        alone = await schedulers(replace(subject, lan=Ears(other)))
    states = [finding.status for finding in both if finding.check == "scheduler"]
    assert states == [Status.WARN, Status.OK]
    assert len([finding for finding in both if finding.check == "clock"]) == 1
    assert "is not of the pool that the token is for" in fails(alone, "scheduler")[0]


async def test_a_server_of_another_kind(tmp_path: Path) -> None:
    """It hangs up at once."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with (
        a_pool(tmp_path) as scheduler,
        await asyncio.start_server(hang_up, "127.0.0.1", 0) as other,
    ):
        for scheme in ("http", "https"):
            url = f"{scheme}://127.0.0.1:{other.sockets[0].getsockname()[1]}"
            findings = await look(tmp_path, scheduler, invited(scheduler), schedulers=(url,))
            found, _ = fails(findings, "scheduler")
            assert url in found


async def test_a_scheduler_has_none(tmp_path: Path) -> None:
    """Above it."""
    assert await schedulers(a_subject(tmp_path, "scheduler")) == ()
