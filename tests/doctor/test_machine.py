"""What the doctor says of data folder, ports, callers and addresses."""

import os
import socket
import time
from pathlib import Path

import pytest

from imagepool.doctor import machine
from protocol.ports.service import Role
from protocol.program import identity, mdns
from protocol.trust.accounts import Accounts
from tests.doctor.subjects import HERE, a_subject, fails, is_ok, warns

pytestmark = pytest.mark.gen_test(timeout=20)


async def test_a_folder_that_is_to_be_made(tmp_path: Path) -> None:
    """It is not made by looking."""
    folder = tmp_path / "new" / "node"
    found = is_ok(await machine.data_folder(a_subject(folder)), "data folder")
    assert "is made at the first start" in found
    assert not (tmp_path / "new").exists()


async def test_a_folder_in_use(tmp_path: Path) -> None:
    """By whom is said; it is not locked for that, and not kept from being used."""
    with identity.open_data(tmp_path):
        found = is_ok(await machine.data_folder(a_subject(tmp_path)), "data folder")
    assert f"(process {os.getpid()}) runs on it" in found
    found = is_ok(await machine.data_folder(a_subject(tmp_path)), "data folder")
    assert "runs on it" not in found


async def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    """Or is below one."""
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below"):
        found, remedy = fails(await machine.data_folder(a_subject(tmp_path / name)), "data folder")
        assert found == f"{tmp_path}/file is no folder"
        assert "--data" in remedy


@pytest.mark.parametrize(("name", "deed"), [("there", "used"), ("there/below", "made")])
async def test_a_folder_that_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, deed: str
) -> None:
    """Whose it is, and who we are; root may do anything, so that this is not tried for real."""
    (tmp_path / "there").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "there")
    monkeypatch.setattr(machine, "_user", lambda number: "ada")
    found, remedy = fails(await machine.data_folder(a_subject(tmp_path / name)), "data folder")
    expected = f"{tmp_path / name} cannot be {deed} by ada: {tmp_path}/there belongs to ada"
    assert found == expected
    assert "as ada" in remedy


async def test_a_disk_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel says it of the file system."""
    real = os.statvfs(tmp_path)
    read_only = os.statvfs_result((*real[:8], real.f_flag | os.ST_RDONLY, real.f_namemax))
    monkeypatch.setattr(os, "statvfs", lambda path: read_only)
    found, remedy = fails(await machine.data_folder(a_subject(tmp_path)), "data folder")
    assert "mounted read-only" in found
    assert "mount -o remount,rw" in remedy


async def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """Less room than the node is to leave."""
    subject = a_subject(tmp_path, disk_reserve=1 << 60)
    found, remedy = fails(await machine.data_folder(subject), "data folder")
    assert "no build is taken" in found
    assert "make room" in remedy


def listening() -> socket.socket:
    """Somebody who has a port."""
    return socket.create_server(("127.0.0.1", 0))


async def test_ports_that_are_free(tmp_path: Path) -> None:
    """And those that members use, where there are members."""
    findings = await machine.ports(a_subject(tmp_path))
    assert "any port" in is_ok(findings, "listen")
    assert [finding.check for finding in findings] == ["listen"]
    findings = await machine.ports(a_subject(tmp_path, join="x"))
    assert [finding.check for finding in findings] == ["listen", "pool_listen"]


async def test_a_port_that_another_has(tmp_path: Path) -> None:
    """Who, and which setting is about it."""
    with listening() as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        settings = {"listen": taken, "pool_listen": taken, "join": "x"}
        findings = await machine.ports(a_subject(tmp_path, **settings))
    for field in ("listen", "pool_listen"):
        found, remedy = fails(findings, field)
        assert found.startswith(f"{taken} is taken by ")
        assert f"(process {os.getpid()})" in found
        assert f"--{field.replace('_', '-')} HOST:PORT" in remedy


async def test_a_port_that_is_our_own(tmp_path: Path) -> None:
    """The program that has the port has locked the data folder."""
    with listening() as other, identity.open_data(tmp_path):
        own = f"127.0.0.1:{other.getsockname()[1]}"
        found = is_ok(await machine.ports(a_subject(tmp_path, listen=own)), "listen")
    assert f"{own} is this program's own" in found


async def test_a_port_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not root does not see who has it."""
    monkeypatch.setattr(machine, "holders", lambda protocol, port: ())
    with listening() as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        found, _ = fails(await machine.ports(a_subject(tmp_path, listen=taken)), "listen")
        assert "root sees which" in found


@pytest.mark.parametrize(
    ("listen", "words", "mends"),
    [
        ("192.0.2.1:8090", "cannot be had: Cannot assign requested address", "127.0.0.1"),
        ("nowhere", "pool_listen is 'nowhere'", "HOST:PORT"),
    ],
)
async def test_an_address_that_is_not_here(
    tmp_path: Path, listen: str, words: str, mends: str
) -> None:
    """What would be one is said."""
    subject = a_subject(tmp_path, pool_listen=listen, join="x")
    found, remedy = fails(await machine.ports(subject), "pool_listen")
    assert words in found
    assert mends in remedy


async def test_a_port_for_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One below 1024."""

    def refuse(host: str, port: int) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine, "_try_out", refuse)
    subject = a_subject(tmp_path, listen="127.0.0.1:80")
    found, remedy = fails(await machine.ports(subject), "listen")
    assert "Permission denied" in found
    assert "1024" in remedy


async def test_who_may_call(tmp_path: Path) -> None:
    """Where others reach it, somebody has to be named; the file is left as it is."""
    lan = {"listen": "0.0.0.0:8090"}
    assert "only this machine" in is_ok(await machine.callers(a_subject(tmp_path)), "who may call")
    found, remedy = fails(await machine.callers(a_subject(tmp_path, **lan)), "who may call")
    assert (
        found == "it would not start: 0.0.0.0:8090 can be reached by others, and nobody has a token"
    )
    assert "imagepool token create NAME --role admin" in remedy
    anybody = a_subject(tmp_path, anonymous="user", **lan)
    assert "as user" in is_ok(await machine.callers(anybody), "who may call")
    assert not list(tmp_path.iterdir())
    accounts = Accounts(tmp_path, time.time)
    await accounts.close()
    fails(await machine.callers(a_subject(tmp_path, **lan)), "who may call")
    accounts = Accounts(tmp_path, time.time)
    text, _ = await accounts.make_token("ada", Role.ADMIN)
    await accounts.close()
    before = sorted(path.name for path in tmp_path.iterdir())
    said = is_ok(await machine.callers(a_subject(tmp_path, **lan)), "who may call")
    assert "who has a token" in said
    assert text not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == before


async def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others would be told; a scheduler that others cannot reach has no nodes elsewhere."""
    assert "only programs of this machine" in is_ok(
        await machine.addresses(a_subject(tmp_path)), "addresses"
    )
    _, remedy = warns(await machine.addresses(a_subject(tmp_path, "scheduler")), "addresses")
    assert "imagepool scheduler --listen ADDRESS:8080" in remedy
    everywhere = a_subject(tmp_path, listen="0.0.0.0:8090")
    for there, words, check in (
        ((), "no address that others could reach", fails),
        (("8.8.8.8",), "does not call 8.8.8.8 by default", warns),
    ):
        monkeypatch.setattr(mdns, "addresses", lambda host, there=there: there)
        found, _ = check(await machine.addresses(everywhere), "addresses")
        assert words in found
    monkeypatch.setattr(mdns, "addresses", lambda host: ("192.168.7.1",))
    assert is_ok(await machine.addresses(everywhere), "addresses") == "192.168.7.1"


async def test_a_host_that_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in `listen`."""

    def unknown(host: str) -> tuple[str, ...]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(mdns, "addresses", unknown)
    found, _ = fails(await machine.addresses(a_subject(tmp_path, listen=HERE)), "addresses")
    assert "is not known" in found
