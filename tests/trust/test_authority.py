"""The pool's authority in its folder."""

import stat
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import Conflict, Denied
from protocol.trust import certificates
from protocol.trust.certificates import NODE, Party
from protocol.trust.membership import issued
from scheduler.pool.authority import Authority

DAY = 86400.0


def authority(folder: Path) -> Authority:
    """The one of that folder."""
    return Authority(folder, DAY, time.time)


def believed(certificate: x509.Certificate, authorities: tuple[x509.Certificate, ...]) -> bool:
    """Whether somebody who believes these believes that."""
    try:
        der = certificate.public_bytes(serialization.Encoding.DER)
        certificates.party(der, authorities)
    except Denied:
        return False
    return True


def test_it_is_the_same_after_a_restart(tmp_path: Path) -> None:
    """Pool, certificate and token; what it admitted before is of the pool still."""
    one, key = authority(tmp_path), Ed25519PrivateKey.generate()
    admitted = one.admit(certificates.ask(key), NODE)
    two = authority(tmp_path)
    assert (two.pool, two.certificates, two.token) == (one.pool, one.certificates, one.token)
    mine = certificates.fingerprint(key.public_key())
    me = Party(mine, NODE, one.pool)
    assert issued(two.certificates, admitted.certificate, me).pool == one.pool
    der = admitted.certificate.public_bytes(serialization.Encoding.DER)
    assert certificates.party(der, two.certificates) == Party(mine, NODE, one.pool)
    for path in (tmp_path / "authority").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_its_token(tmp_path: Path) -> None:
    """It names the authority, and admits until there is another one."""
    one = authority(tmp_path)
    before = one.token
    assert before.authority == certificates.digest(one.certificates[0])
    one.check(before.secret)
    after = one.new_token()
    for known in (one, authority(tmp_path)):
        known.check(after.secret)
        for wrong in (before.secret, b"", bytes(16), after.secret + b"x"):
            with pytest.raises(Denied):
                known.check(wrong)


def test_another_one_takes_its_place(tmp_path: Path) -> None:
    """At no moment is there a member that another member does not believe, if each step waits until
    every member has what the step before made.
    """
    keys = [certificates.ask(Ed25519PrivateKey.generate()) for _ in range(2)]
    one = authority(tmp_path)
    members = [one.admit(key, NODE) for key in keys]
    for step in (one.begin_replacing, one.use_newest, one.end_replacing):
        step()
        one = authority(tmp_path)
        for number, key in enumerate(keys):
            members[number] = one.admit(key, NODE)  # the other still has the step before
            for member in members:
                assert all(believed(other.certificate, member.authorities) for other in members)
    assert one.generations == (2,)
    assert len(one.certificates) == 1
    assert one.token.authority == certificates.digest(one.certificates[0])
    assert len(list((tmp_path / "authority").iterdir())) == 3


def test_one_at_a_time(tmp_path: Path) -> None:
    """While one is replaced, no third begins."""
    one = authority(tmp_path)
    one.begin_replacing()
    with pytest.raises(Conflict):
        one.begin_replacing()


@pytest.mark.parametrize("name", ["state.json", "1-key.pem", "1.pem"])
def test_a_damaged_one(tmp_path: Path, name: str) -> None:
    """Is no reason to make another one silently: nobody would be believed any more."""
    authority(tmp_path)
    (tmp_path / "authority" / name).write_bytes(b"rubbish")
    with pytest.raises(Conflict, match="cannot be read"):
        authority(tmp_path)
