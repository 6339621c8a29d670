"""`imagepool token` and `imagepool user`, and saying who one is on the command line."""

import os
from pathlib import Path

import pytest

from imagepool import AsyncClient, Client
from imagepool.cli import folder
from imagepool.client.credentials import token_file, token_of
from protocol.errors import Denied, Invalid
from protocol.ports.service import Role
from protocol.program import identity
from tests.cli.shell import Ran, imagepool
from tests.programs import Program, a_node

pytestmark = pytest.mark.gen_test(timeout=60)

PASSWORD = b"correct horse battery\n"


async def said(*words: str, code: int = 0, **how: object) -> Ran:
    """What the command printed."""
    ran = await imagepool(*words, **how)
    assert ran.code == code, ran
    return ran


def bearer(node: Program, text: str) -> AsyncClient:
    """The program for whoever has that token."""
    return AsyncClient(node.url, token=text)


async def test_where_no_program_runs(tmp_path: Path) -> None:
    """The data folder is changed: that is how the first one comes to be. It is written down who
    did.
    """
    data = ("--data", str(tmp_path / "one"))
    made = await said("token", "create", "ada", "--role", "admin", *data)
    text = made.out.strip()
    assert "shown once" in made.err
    assert str(tmp_path / "one") in made.err
    listed = await said("token", "list", *data)
    assert text not in listed.out
    assert listed.out.splitlines()[1].split()[:3] == ["ada", "admin", "ada"]
    made = await said("user", "add", "bob", "--role", "viewer", *data, stdin=PASSWORD)
    assert made.out == "bob is viewer\n"
    async with a_node(tmp_path, home="one") as node, bearer(node, text) as ada:
        assert [user.name for user in await ada.users()] == ["bob"]
        done = [deed.what for deed in (await ada.audit()).deeds]
        assert done == ["imagepool user add bob", "imagepool token create ada"]
    await said("user", "remove", "bob", *data)
    await said("token", "revoke", "ada", *data)
    assert (await said("user", "list", "--json", *data)).json == {"users": []}
    assert (await said("token", "list", "--json", *data)).json == {"tokens": []}
    ran = await said("token", "revoke", "ada", *data, code=2)
    assert "there is no token 'ada'" in ran.err


async def test_where_no_program_ever_ran(tmp_path: Path) -> None:
    """Only what makes somebody makes a folder."""
    base = {"XDG_DATA_HOME": str(tmp_path / "own"), "IMAGEPOOL_DATA": str(tmp_path / "own")}
    for words in (("token", "list"), ("token", "revoke", "a"), ("user", "list")):
        ran = await said(*words, environment=base, code=2)
        assert "was ever started" in ran.err
        assert not (tmp_path / "own").exists()


async def test_the_scheduler_of_up(monkeypatch, tmp_path: Path) -> None:
    """Is meant where there is no other; where it runs, it is asked."""
    monkeypatch.setattr(folder, "data_folder", lambda settings, program: tmp_path / program)
    mine = tmp_path / "up" / "scheduler"
    mine.mkdir(parents=True)
    found = folder.opened("scheduler", None, None, makes=False)
    assert not isinstance(found, str)
    async with found as people:
        assert people.folder == mine
        assert folder.opened("scheduler", None, None, makes=True) == "http://127.0.0.1:8080"
    (tmp_path / "scheduler").mkdir()
    found = folder.opened("scheduler", None, None, makes=False)
    assert not isinstance(found, str)
    async with found as people:
        assert people.folder == tmp_path / "scheduler"
    with identity.open_data(mine):
        assert folder.opened("scheduler", None, None, makes=True) == "http://127.0.0.1:8080"


async def test_through_a_program_that_runs(tmp_path: Path) -> None:
    """By its URL; its folder is locked, and not touched."""
    async with a_node(tmp_path, home="one") as node:
        made = await said("token", "create", "ada", "--role", "admin", url=node.url)
        known = {"IMAGEPOOL_TOKEN": made.out.strip()}
        ran = await said("token", "list", url=node.url, code=2)
        assert "has to say who they are" in ran.err
        ran = await said("token", "list", url=node.url, environment=known)
        assert "ada" in ran.out
        made = await said(
            *("token", "create", "ci", "--lasts", "2d", "--owner", "web", "--json"),
            url=node.url,
            environment=known,
        )
        assert (made.json["role"], made.json["owner"]) == ("user", "web")
        assert made.json["expires"] - made.json["created"] == 2 * 86400
        ran = await said("status", "--token", made.json["token"], url=node.url)
        assert "ready" in ran.out
        await said("user", "add", "bob", url=node.url, environment=known, stdin=PASSWORD)
        await said("user", "remove", "bob", url=node.url, environment=known)
        await said("token", "revoke", "ci", url=node.url, environment=known)


async def test_a_folder_whose_program_runs(tmp_path: Path) -> None:
    """The program is asked, where its settings say that it listens."""
    async with a_node(tmp_path, home="one") as node:
        listen = node.url.removeprefix("http://")
        made = await said(
            *("token", "create", "ada", "--role", "admin", "--program", "node"),
            *("--data", str(tmp_path / "one")),
            environment={"IMAGEPOOL_LISTEN": listen},
        )
        assert node.parts.people.accounts.token(made.out.strip()).name == "ada"


@pytest.mark.parametrize("lasts", ["0", "-1", "1y", "soon", "1e9", ""])
async def test_what_lasts_no_time(tmp_path: Path, lasts: str) -> None:
    """Says what it should have been."""
    ran = await said(
        *("token", "create", "ada", "--role", "admin", "--data", str(tmp_path / "one")),
        *("--lasts", lasts),
        code=2,
    )
    assert "30d" in ran.err


async def test_no_password(tmp_path: Path) -> None:
    """Nothing on standard input, too little of it; there is no way to give it as an argument."""
    words = ("user", "add", "ada", "--role", "admin", "--data", str(tmp_path / "one"))
    assert "there is no password" in (await said(*words, code=2)).err
    ran = await said(*words, code=2, stdin=b"short\n")
    assert "password" in ran.err
    assert "short" not in ran.err.replace("password", "")
    assert "no such option" in (await said(*words, "--password", "x", code=2)).err.lower()


# Where the token comes from


async def test_the_token_file(tmp_path: Path) -> None:
    """Of this person only; where others can read it, it is not used."""
    async with a_node(tmp_path) as node:
        text, _ = await node.parts.people.accounts.make_token("ada", Role.ADMIN)
        file = tmp_path / "config" / "imagepool" / "token"
        file.parent.mkdir(parents=True)
        file.write_text(text + "\n")
        config = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
        for mode in (0o644, 0o640, 0o604):
            file.chmod(mode)
            ran = await said("token", "list", url=node.url, environment=config, code=2)
            assert f"chmod 600 {file}" in ran.err
            assert text not in ran.err
        file.chmod(0o600)
        assert "ada" in (await said("token", "list", url=node.url, environment=config)).out


def test_a_token_goes_only_where_somebody_said(monkeypatch, tmp_path: Path) -> None:
    """mDNS believes anyone: what it finds gets no token, neither a given one nor the file's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("IMAGEPOOL_TOKEN", raising=False)
    file = token_file()
    file.parent.mkdir()
    file.touch(0o600)
    file.write_text("of-the-file")
    assert token_of("", named=True) == "of-the-file"
    assert token_of("", named=False) == ""
    assert token_of("given", named=True) == "given"
    with pytest.raises(Invalid, match="whoever mDNS finds"):
        token_of("given", named=False)
    monkeypatch.setenv("IMAGEPOOL_TOKEN", "of-the-variable")
    assert token_of("", named=True) == "of-the-variable"
    assert token_of("given", named=True) == "given"
    with pytest.raises(Invalid, match="whoever mDNS finds"):
        token_of("", named=False)
    with pytest.raises(Invalid, match="whoever mDNS finds"):
        Client(token="x")


@pytest.mark.parametrize("text", ["a b", "a\r\nX: y", "é", "x" * 513])
def test_what_is_no_token(monkeypatch, text: str) -> None:
    """Would be a header of somebody else's making."""
    monkeypatch.setenv("IMAGEPOOL_TOKEN", text)
    with pytest.raises(Invalid) as refused:
        token_of("", named=True)
    assert text not in str(refused.value)


def test_a_folder_is_no_token_file(monkeypatch, tmp_path: Path) -> None:
    """It is said that it cannot be read."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("IMAGEPOOL_TOKEN", raising=False)
    os.makedirs(token_file())
    with pytest.raises(Invalid, match="cannot be read"):
        token_of("", named=True)


async def test_the_python_client(tmp_path: Path) -> None:
    """Is whoever its token says."""
    async with a_node(tmp_path) as node:
        text, _ = await node.parts.people.accounts.make_token("root", Role.ADMIN)
        async with bearer(node, text) as root:
            made = await root.make_token("ci", "viewer", owner="web", lasts=60)
            assert [token.name for token in await root.tokens()] == ["root", "ci"]
            async with bearer(node, made.token) as robot:
                assert (await robot.whoami()).owner == "web"
                with pytest.raises(Denied):
                    await robot.submit({"recipe": {"commands": [{"name": "a", "text": "a"}]}})
            assert (await root.put_user("ada", "user", "correct horse battery")).role == "user"
            await root.remove_user("ada")
            await root.revoke_token("ci")
