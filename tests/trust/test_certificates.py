"""What is believed of a certificate, and of a join token."""

import contextlib
import secrets
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import Denied, Invalid
from protocol.trust import certificates, token
from protocol.trust.certificates import NODE, SCHEDULER, Party
from protocol.trust.membership import Membership, Memberships, believing, issued
from protocol.trust.token import JoinToken

DAY = 86400.0


class Authority:
    """A pool's authority."""

    def __init__(self, now: float | None = None, pool: str | None = None) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.now = time.time() if now is None else now
        self.pool = secrets.token_hex(8) if pool is None else pool
        self.certificate = certificates.make_authority(self.key, self.pool, self.now)

    def issue(
        self, key: Ed25519PrivateKey, role: str = NODE, validity: float = DAY
    ) -> x509.Certificate:
        """A certificate of ours for that key."""
        asked = certificates.asked(certificates.ask(key))
        return certificates.issue(asked, role, self.certificate, self.key, self.now, validity)


def der(certificate: x509.Certificate) -> bytes:
    """As it comes over a connection."""
    return certificate.public_bytes(serialization.Encoding.DER)


def member(folder: Path, authority: Authority, role: str, **more: float) -> tuple[str, Memberships]:
    """(a new program's id, its pools: the one of this authority)."""
    folder.mkdir()
    key = Ed25519PrivateKey.generate()
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    pools = Memberships(folder, folder / "key.pem")
    pools.put(Membership((authority.certificate,), authority.issue(key, role, **more)))
    return certificates.fingerprint(key.public_key()), pools


def shaken(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str
) -> tuple[bytes | None, bytes | None]:
    """The certificates that both ends have seen, (client's, server's), after a handshake in memory.
    Raises SSLError.
    """
    one, two = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(one, two, server_hostname=name)
    called = server.wrap_bio(two, one, server_side=True)
    for _ in range(4):
        for end in (caller, called):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return called.getpeercert(binary_form=True), caller.getpeercert(binary_form=True)


class TestTokens:
    """Join tokens as text."""

    def test_there_and_back(self) -> None:
        """A token says what it was made of, whatever blanks a paste has around it."""
        made = JoinToken("ab" * 32, bytes(range(16)))
        assert token.read(f" {made}\n") == made
        assert str(made).startswith("imagepool-join-1-")
        assert made.secret.hex() not in repr(made)

    @pytest.mark.parametrize("at", [18, 50, 90, 96])
    def test_one_with_a_mistake(self, at: int) -> None:
        """A letter that is another one is seen, and the token is not repeated in the error."""
        text = str(JoinToken("ab" * 32, bytes(16)))
        wrong = text[:at] + ("b" if text[at] == "a" else "a") + text[at + 1 :]
        with pytest.raises(Invalid) as caught:
            token.read(wrong)
        assert caught.value.field == "join"
        assert wrong[20:] not in f"{caught.value.detail} {caught.value.expected}"

    @pytest.mark.parametrize("text", ["", "x", "imagepool-join-1-", "imagepool-join-1-" + "1" * 80])
    def test_what_is_none(self, text: str) -> None:
        """Also what was cut off."""
        with pytest.raises(Invalid):
            token.read(text)
        with pytest.raises(Invalid):
            token.read(str(JoinToken("ab" * 32, bytes(16)))[:-1])


class TestCertificates:
    """Who is who by certificate."""

    @pytest.mark.parametrize("role", [NODE, SCHEDULER])
    def test_a_program_of_the_pool(self, role: str) -> None:
        """It is known by id, role and authority."""
        authority, key = Authority(), Ed25519PrivateKey.generate()
        made = authority.issue(key, role)
        mine = certificates.fingerprint(key.public_key())
        assert certificates.party(der(made), [Authority().certificate, authority.certificate]) == (
            Party(mine, role, authority.pool)
        )

    def test_one_of_another_pool(self) -> None:
        """It is nobody here, also where its authority calls its pool by our pool's id, or puts our
        names in its certificates.
        """
        ours, key = Authority(), Ed25519PrivateKey.generate()
        twin = Authority(pool=ours.pool)
        with pytest.raises(Denied, match="another pool"):
            certificates.party(der(twin.issue(key)), [ours.certificate])
        ours, other, key = Authority(), Authority(), Ed25519PrivateKey.generate()
        with pytest.raises(Denied, match="another pool"):
            certificates.party(der(other.issue(key)), [ours.certificate])
        asked = certificates.asked(certificates.ask(key))
        forged = certificates.issue(asked, NODE, ours.certificate, other.key, time.time(), DAY)
        with pytest.raises(Denied, match="another pool"):
            certificates.party(der(forged), [ours.certificate, other.certificate])

    def test_an_id_that_is_not_its_key_s(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An id is nobody's but the key's, whatever an authority signs."""
        authority, key = Authority(), Ed25519PrivateKey.generate()
        with monkeypatch.context() as patched:
            patched.setattr(certificates, "fingerprint", lambda key: "0" * 40)
            forged = authority.issue(key)
        with pytest.raises(Denied, match="another program"):
            certificates.party(der(forged), [authority.certificate])

    @pytest.mark.parametrize("data", [b"", b"rubbish", b"\x30\x82" + bytes(100)])
    def test_what_is_no_certificate(self, data: bytes) -> None:
        """Rubbish is nobody, and no other error."""
        with pytest.raises(Denied):
            certificates.party(data, [Authority().certificate])

    def test_an_authority_is_no_program(self) -> None:
        """Nobody speaks as the authority itself."""
        authority = Authority()
        with pytest.raises(Denied):
            certificates.party(der(authority.certificate), [authority.certificate])

    @pytest.mark.parametrize("data", [b"", b"rubbish", b"x" * 5000])
    def test_what_is_no_request(self, data: bytes) -> None:
        """The field is named."""
        with pytest.raises(Invalid) as caught:
            certificates.asked(data)
        assert caught.value.field == "request"

    def test_when_it_is_due(self) -> None:
        """At two thirds of its life, and where our clock says that it was made in the future."""
        authority = Authority(now=1e9)
        made = authority.issue(Ed25519PrivateKey.generate(), validity=30 * DAY)
        assert certificates.ends(made) == 1e9 + 30 * DAY
        assert not certificates.is_due(made, 1e9 + 19 * DAY)
        assert certificates.is_due(made, 1e9 + 21 * DAY)
        assert not certificates.is_due(made, 1e9 - 3600)
        assert certificates.is_due(made, 1e9 - 3 * 3600)


class TestTls:
    """What connections accept."""

    def test_two_programs_of_a_pool(self, tmp_path: Path) -> None:
        """Both know who the other one is."""
        authority = Authority()
        node, nodes = member(tmp_path / "node", authority, NODE)
        scheduler, pools = member(tmp_path / "scheduler", authority, SCHEDULER)
        for name in (node, NODE):
            seen, shown = shaken(
                nodes.server(),
                pools.client(authority.pool),
                certificates.server_name(name, authority.pool),
            )
            assert nodes.party(seen) == Party(scheduler, SCHEDULER, authority.pool)
            assert pools.party(shown) == Party(node, NODE, authority.pool)

    def test_another_name_than_expected(self, tmp_path: Path) -> None:
        """An admitted node that answers in another one's place, or in a scheduler's, is hung up
        on.
        """
        authority = Authority()
        _, nodes = member(tmp_path / "node", authority, NODE)
        _, pools = member(tmp_path / "scheduler", authority, SCHEDULER)
        for name in ("f" * 40, SCHEDULER):
            with pytest.raises(ssl.SSLError, match=r"(?i)hostname mismatch"):
                shaken(
                    nodes.server(),
                    pools.client(authority.pool),
                    certificates.server_name(name, authority.pool),
                )

    def test_a_certificate_of_another_pool(self, tmp_path: Path) -> None:
        """Neither end believes it."""
        ours, other = Authority(), Authority()
        node, nodes = member(tmp_path / "node", ours, NODE)
        _, strangers = member(tmp_path / "stranger", other, SCHEDULER)
        with pytest.raises(ssl.SSLError):
            shaken(
                nodes.server(),
                strangers.client(other.pool),
                certificates.server_name(node, other.pool),
            )
        bold = strangers.client(other.pool)
        bold.check_hostname, bold.verify_mode = False, ssl.CERT_NONE
        with pytest.raises(ssl.SSLError, match=r"(?i)certificate verify failed|unknown ca"):
            shaken(nodes.server(), bold, certificates.server_name(node, ours.pool))

    def test_nobody(self, tmp_path: Path) -> None:
        """Who has no certificate yet is let in as nobody, and knows whom it speaks to."""
        authority = Authority()
        scheduler, pools = member(tmp_path / "scheduler", authority, SCHEDULER)
        seen, shown = shaken(
            pools.server(),
            believing(authority.certificate),
            certificates.server_name(SCHEDULER, authority.pool),
        )
        assert pools.party(seen) is None
        assert pools.party(shown) == Party(scheduler, SCHEDULER, authority.pool)

    def test_one_that_has_ended(self, tmp_path: Path) -> None:
        """It is of no use any more, and one an hour from the other end's clock is."""
        past = Authority(now=time.time() - 2 * DAY)
        _, pools = member(tmp_path / "scheduler", past, SCHEDULER, validity=10 * DAY)
        old, ended = member(tmp_path / "ended", past, NODE, validity=DAY)
        with pytest.raises(ssl.SSLError, match=r"(?i)expired"):
            shaken(
                ended.server(), pools.client(past.pool), certificates.server_name(old, past.pool)
            )
        ahead = Authority(now=time.time() + 3600)
        _, pools = member(tmp_path / "scheduler2", ahead, SCHEDULER)
        node, nodes = member(tmp_path / "node", ahead, NODE)
        shaken(nodes.server(), pools.client(ahead.pool), certificates.server_name(node, ahead.pool))

    def test_nothing_goes_by_an_earlier_connection(self, tmp_path: Path) -> None:
        """No ticket is given by which somebody could come again without showing a certificate, as
        one could whose certificate has ended since.
        """
        authority = Authority()
        node, nodes = member(tmp_path / "node", authority, NODE)
        _, pools = member(tmp_path / "scheduler", authority, SCHEDULER)
        one, two = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = certificates.server_name(node, authority.pool)
        caller = pools.client(authority.pool).wrap_bio(one, two, server_hostname=name)
        called = nodes.server().wrap_bio(two, one, server_side=True)
        for end in (caller, called, caller, called):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
        called.write(b"hello")
        assert caller.read() == b"hello"
        assert caller.session is not None
        assert not caller.session.has_ticket

    def test_an_older_tls(self, tmp_path: Path) -> None:
        """Nobody talks a program out of version 1.3, in either direction."""
        authority = Authority()
        node, nodes = member(tmp_path / "node", authority, NODE)
        _, pools = member(tmp_path / "scheduler", authority, SCHEDULER)
        name = certificates.server_name(node, authority.pool)
        old = pools.client(authority.pool)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError, match=r"(?i)version|protocol"):
            shaken(nodes.server(), old, name)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(
            tmp_path / "node" / "pools" / authority.pool / "certificate.pem",
            tmp_path / "node" / "key.pem",
        )
        server.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError, match=r"(?i)version|protocol|alert"):
            shaken(server, believing(authority.certificate), name)

    def test_a_program_of_two_pools(self, tmp_path: Path) -> None:
        """It shows each caller the certificate of the pool that the caller means, and believes a
        caller in that pool only.
        """
        one, two = Authority(), Authority()
        node, nodes = member(tmp_path / "node", one, NODE)
        key = serialization.load_pem_private_key((tmp_path / "node" / "key.pem").read_bytes(), None)
        assert isinstance(key, Ed25519PrivateKey)
        nodes.put(Membership((two.certificate,), two.issue(key)))
        for number, authority in enumerate((one, two)):
            scheduler, pools = member(tmp_path / f"s{number}", authority, SCHEDULER)
            name = certificates.server_name(node, authority.pool)
            for server in (nodes, Memberships(tmp_path / "node", tmp_path / "node" / "key.pem")):
                seen, _ = shaken(server.server(), pools.client(authority.pool), name)
                assert server.party(seen) == Party(scheduler, SCHEDULER, authority.pool)
        client = pools.client(two.pool)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        with pytest.raises(ssl.SSLError):
            shaken(nodes.server(), client, certificates.server_name(node, one.pool))

    def test_another_authority_of_the_same_pool(self, tmp_path: Path) -> None:
        """While authorities change both are believed, whichever made the other end's
        certificate.
        """
        old = Authority()
        new = Authority(pool=old.pool)
        both = (new.certificate, old.certificate)
        node, nodes = member(tmp_path / "node", old, NODE)
        scheduler, pools = member(tmp_path / "scheduler", new, SCHEDULER)
        name = certificates.server_name(node, old.pool)
        with pytest.raises(ssl.SSLError):
            shaken(nodes.server(), pools.client(old.pool), name)
        for one in (nodes, pools):
            one.put(Membership(both, one.all()[old.pool].certificate))
        seen, shown = shaken(nodes.server(), pools.client(old.pool), name)
        assert nodes.party(seen) == Party(scheduler, SCHEDULER, old.pool)
        assert pools.party(shown) == Party(node, NODE, old.pool)

    def test_an_authority_that_is_believed_no_more(self, tmp_path: Path) -> None:
        """Whose certificate it made is not either, also where it was seen before."""
        old = Authority()
        new = Authority(pool=old.pool)
        _, nodes = member(tmp_path / "node", old, NODE)
        key = Ed25519PrivateKey.generate()
        seen = der(old.issue(key, SCHEDULER))
        who = Party(certificates.fingerprint(key.public_key()), SCHEDULER, old.pool)
        assert [nodes.party(seen), nodes.party(seen)] == [who, who]
        mine = nodes.all()[old.pool].certificate
        nodes.put(Membership((new.certificate,), mine))
        with pytest.raises(Denied):
            nodes.party(seen)

    def test_what_was_given_for_another(self) -> None:
        """A certificate that is not ours, or of another role, is not kept."""
        authority, key = Authority(), Ed25519PrivateKey.generate()
        mine = certificates.fingerprint(key.public_key())
        made = authority.issue(key)
        pool = authority.pool
        given = issued((authority.certificate,), made, Party(mine, NODE, pool))
        assert given.certificate == made
        for wanted in (
            Party(mine, SCHEDULER, pool),
            Party("f" * 40, NODE, pool),
            Party(mine, NODE, Authority().pool),
        ):
            with pytest.raises(Denied):
                issued((authority.certificate,), made, wanted)
        for authorities in (
            (Authority().certificate,),
            (authority.certificate, made),
            (authority.certificate, Authority().certificate),
            (),
        ):
            with pytest.raises((Denied, Invalid)):
                issued(authorities, made, Party(mine, NODE, pool))
