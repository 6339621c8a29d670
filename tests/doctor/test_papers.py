"""What the doctor says of key, token, certificate and authority."""

import time
from pathlib import Path
from typing import Any

import pytest

from imagepool.doctor.papers import papers
from protocol.program import identity
from protocol.trust import certificates
from protocol.trust.certificates import NODE, SCHEDULER
from protocol.trust.membership import Membership, Memberships
from protocol.trust.token import JoinToken
from scheduler.pool.authority import Authority
from tests.doctor.subjects import a_subject, fails, is_ok, warns

pytestmark = pytest.mark.gen_test(timeout=20)

DAY = 86400.0


def a_member(folder: Path, made: float, role: str = NODE) -> Authority:
    """The authority of a pool; the program of the folder got a certificate for ten days then."""
    identity.load(folder)
    place = folder if role == SCHEDULER else folder / "elsewhere"
    place.mkdir(exist_ok=True)
    authority = Authority(place, 10 * DAY, lambda: made)
    asked = certificates.ask(identity.key_of(folder))
    Memberships(folder, folder / identity.KEY).put(authority.admit(asked, role))
    return authority


async def test_a_program_that_was_never_started(tmp_path: Path) -> None:
    """It has no key yet, and is of no pool; which is in the way where others are to reach it."""
    findings = await papers(a_subject(tmp_path))
    assert "made at the first start" in is_ok(findings, "key")
    _, remedy = warns(findings, "certificate")
    assert "imagepool node --join TOKEN" in remedy
    found, _ = fails(await papers(a_subject(tmp_path, listen="0.0.0.0:8090")), "certificate")
    assert "of no pool" in found
    assert not list(tmp_path.iterdir())


async def test_the_key(tmp_path: Path) -> None:
    """Which program it makes this; that others can read it; that it is none."""
    me = identity.load(tmp_path).id
    assert me[:16] in is_ok(await papers(a_subject(tmp_path)), "key")
    (tmp_path / "key.pem").chmod(0o644)
    found, remedy = fails(await papers(a_subject(tmp_path)), "key")
    assert "mode 644" in found
    assert remedy == f"chmod 600 {tmp_path}/key.pem"
    (tmp_path / "key.pem").write_text("rubbish")
    found, remedy = fails(await papers(a_subject(tmp_path)), "key")
    assert "is not an Ed25519 key" in found
    assert "backup" in remedy


async def test_a_key_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another user than the program's."""

    def refuse(folder: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(folder / "key.pem"))

    identity.load(tmp_path)
    monkeypatch.setattr("imagepool.doctor.papers.key_of", refuse)
    found, remedy = fails(await papers(a_subject(tmp_path)), "key")
    assert "Permission denied" in found
    assert "owner" in remedy


@pytest.mark.parametrize("cut", [slice(0, -1), slice(1, None), slice(0, 0)])
async def test_a_join_token_that_is_none(tmp_path: Path, cut: slice) -> None:
    """Cut off at either end; it is not repeated."""
    text = str(JoinToken("ab" * 32, bytes(range(16))))
    assert "abababab" in is_ok(await papers(a_subject(tmp_path, join=text)), "join token")
    wrong = text[cut] or "hello"
    found, remedy = fails(await papers(a_subject(tmp_path, join=wrong)), "join token")
    assert "expected: it begins with imagepool-join-1-" in found
    assert "imagepool invite" in remedy
    assert wrong not in found + remedy


async def test_a_certificate_in_its_time(tmp_path: Path) -> None:
    """Good, due, ended, not begun: by this machine's clock."""
    now = time.time()
    pool = a_member(tmp_path, now).pool
    for days, look, words in (
        (1, is_ok, f"member of the pool {pool}, good for 9 d"),
        (8, warns, "it should have been renewed"),
        (12, fails, f"member of the pool {pool}, ended 2 d ago"),
        (-2, fails, "a clock is wrong"),
    ):
        subject = a_subject(tmp_path, clock=lambda days=days: now + days * DAY)
        said = look(await papers(subject), "certificate")
        assert words in (said if isinstance(said, str) else said[0])
        if days == 12:
            assert f"rm -r {tmp_path}/pools/{pool}" in said[1]


async def test_a_certificate_for_another_key(tmp_path: Path) -> None:
    """As where the key was made anew."""
    a_member(tmp_path, time.time())
    (tmp_path / "key.pem").unlink()
    identity.load(tmp_path)
    found, remedy = fails(await papers(a_subject(tmp_path)), "certificate")
    assert "does not fit" in found
    assert f"remove {tmp_path}/pools" in remedy


async def test_a_schedulers_authority(tmp_path: Path) -> None:
    """There, ended, being replaced, damaged; only programs of this machine need none."""
    now = time.time()
    members: dict[str, Any] = {"pool_listen": "127.0.0.1:0"}
    assert "none is needed" in is_ok(await papers(a_subject(tmp_path, "scheduler")), "authority")
    subject = a_subject(tmp_path, "scheduler", **members)
    assert "made at the first start" in is_ok(await papers(subject), "authority")
    assert not list(tmp_path.iterdir())
    authority = a_member(tmp_path, now, SCHEDULER)
    findings = await papers(subject)
    assert authority.pool in is_ok(findings, "authority")
    assert authority.token.secret.hex() not in str(findings)
    is_ok(findings, "certificate")
    late = a_subject(tmp_path, "scheduler", clock=lambda: now + 30 * 365 * DAY, **members)
    found, remedy = fails(await papers(late), "authority")
    assert "ended" in found
    assert "--replace" in remedy
    authority.begin_replacing()
    assert "being replaced" in warns(await papers(subject), "authority")[0]
    (tmp_path / "authority" / "1.pem").write_text("rubbish")
    found, remedy = fails(await papers(subject), "authority")
    assert "cannot be read" in found
    assert "backup" in remedy


async def test_a_membership_that_names_no_authority(tmp_path: Path) -> None:
    """A file that was emptied."""
    membership: Membership = a_member(tmp_path, time.time()).admit(
        certificates.ask(identity.key_of(tmp_path)), NODE
    )
    (tmp_path / "pools" / membership.pool / "authorities.pem").write_text("")
    found, _ = fails(await papers(a_subject(tmp_path)), "certificate")
    assert "names no authority" in found
