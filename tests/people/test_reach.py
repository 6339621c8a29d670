"""Programs that others could reach do not start until somebody said who may call them."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from node import app as node_app
from node.config import NodeSettings
from protocol.errors import Invalid
from protocol.ports.service import Role
from protocol.program.admitting import People
from protocol.program.settings import ProgramSettings
from scheduler import app as scheduler_app
from scheduler.config import SchedulerSettings
from tests.cli.shell import imagepool

pytestmark = pytest.mark.gen_test(timeout=60)

PROGRAMS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "node": (node_app, NodeSettings, {"engine": "dummy", "disk_reserve": 0}),
    "scheduler": (scheduler_app, SchedulerSettings, {}),
}
LAN = ("0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080", "pool.example:8080", "[2001:db8::1]:8080")
LOOPBACK = ("127.0.0.1:8080", "127.8.8.8:8080", "[::1]:8080", "localhost:8080")


async def refusal(folder: Path, **given: Any) -> Invalid | None:
    """What a program with these settings says before it starts."""
    people = People(folder, ProgramSettings(**given), lambda: 1e9)
    try:
        people.check_reach()
    except Invalid as error:
        return error
    finally:
        await people.close()
    return None


@pytest.mark.parametrize("listen", LAN)
async def test_where_others_reach_it(tmp_path: Path, listen: str) -> None:
    """Nobody's word: refused. A token, a user, or `anonymous`: taken. What programs need not prove
    says nothing of clients.
    """
    assert await refusal(tmp_path, listen=listen)
    assert await refusal(tmp_path, listen=listen, unproven="anywhere")
    assert not await refusal(tmp_path, listen=listen, anonymous="user")
    assert not await refusal(tmp_path, listen=listen, anonymous="viewer")
    people = People(tmp_path, ProgramSettings(), lambda: 1e9)
    await people.accounts.make_token("ada", Role.ADMIN)
    await people.close()
    assert not await refusal(tmp_path, listen=listen)


@pytest.mark.parametrize("listen", LOOPBACK)
async def test_where_only_this_machine_does(tmp_path: Path, listen: str) -> None:
    """Nothing is asked for."""
    assert not await refusal(tmp_path, listen=listen)


@pytest.mark.parametrize("program", PROGRAMS)
async def test_the_words_say_what_mends_it(tmp_path: Path, program: str) -> None:
    """The command that they name, run as it stands, mends it."""
    app, kind, settings = PROGRAMS[program]
    common = {"mdns": False, "data": str(tmp_path / "data"), **settings}
    with pytest.raises(Invalid) as refused:
        await app.run(kind(listen="192.0.2.1:8080", **common), print, asyncio.Event())
    assert refused.value.field == "listen"
    match = re.search(r"\(imagepool (token create NAME [^)]*)\)", refused.value.expected)
    assert match
    assert "--anonymous user" in refused.value.expected
    ran = await imagepool(*match[1].replace("NAME", "ada").split())
    assert (ran.code, ran.out.strip().startswith("imagepool-")) == (0, True), ran
    assert not await refusal(tmp_path / "data", listen="192.0.2.1:8080")


@pytest.mark.parametrize("program", PROGRAMS)
async def test_as_people_see_it(tmp_path: Path, program: str) -> None:
    """Exit code 2, in one line."""
    ran = await imagepool(
        program, "--listen", "0.0.0.0:0", "--no-mdns", "--data", str(tmp_path / "data")
    )
    assert ran.code == 2
    assert "nobody has a token" in ran.err
    assert "Traceback" not in ran.err
