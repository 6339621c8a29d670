"""The Python client against a real pool on the dummy engine, in this process."""

import asyncio
import hashlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from imagepool import AsyncClient, Client
from imagepool.client import (
    BuildQuery,
    BuildRequest,
    Changed,
    Command,
    Conflict,
    Invalid,
    LogPiece,
    NoOutput,
    NotFound,
    Order,
    Recipe,
    Result,
    State,
    Unreachable,
)
from tests.chaos.local import free_port
from tests.client.pool import a_pool
from tests.programs import Program, request

ROOT = Path(__file__).parents[2]


def recipe(*texts: str, output: bool = False) -> Recipe:
    """Commands in the dummy engine's language."""
    commands = tuple(Command(f"step {i}", text=text) for i, text in enumerate(texts, 1))
    return Recipe(commands) if output else Recipe(commands, output=NoOutput())


@pytest.mark.gen_test(timeout=60)
async def test_what_is_submitted_may_be_typed_or_plain(tmp_path) -> None:
    """A recipe, a request, an order, a mapping of either API: all are built."""
    plain = {"commands": [{"name": "a", "command": "print x", "arguments": []}]}
    native = {"recipe": {"commands": [{"name": "a", "text": "print x"}]}}
    wanted = (recipe("print x"), request("print x"), Order(recipe("print x")), plain, native)
    async with a_pool(tmp_path) as pool, AsyncClient(pool.url, owner="ann") as client:
        for each in wanted:
            build = await client.wait((await client.submit(each)).id)
            assert build.result is Result.SUCCEEDED
            assert [line async for line in client.lines(build.id)][:1] == ["x"]
            assert build.owner == "ann"
        stopped = BuildQuery(limit=2, status=State.STOPPED)
        assert len([build async for build in client.builds(stopped)]) == len(wanted)


@pytest.mark.gen_test(timeout=60)
async def test_watching_tells_changes_and_log_and_ends_with_the_stopped_build(tmp_path) -> None:
    """Every byte of the log, in order; the last event is the build as it ended."""
    async with a_pool(tmp_path) as pool, AsyncClient(pool.url) as client:
        build = await client.submit(recipe("print one\nsleep 0.3\nprint two", "exit 3"))
        events = [event async for event in client.watch(build.id)]
    pieces = [event for event in events if isinstance(event, LogPiece)]
    assert b"".join(piece.data for piece in pieces).startswith(b"one\ntwo\n")
    assert [piece.offset for piece in pieces[:1]] == [0]
    assert isinstance(events[-1], Changed)
    assert (events[-1].build.state, events[-1].build.result) == (State.STOPPED, Result.FAILED)
    states = [event.build.state for event in events if isinstance(event, Changed)]
    assert states == sorted(states, key=list(State).index)


@pytest.mark.gen_test(timeout=60)
async def test_who_stops_watching_leaves_nothing_behind(tmp_path) -> None:
    """No task goes on; the build does."""
    async with a_pool(tmp_path) as pool, AsyncClient(pool.url) as client:
        build = await client.submit(recipe("print one\nhang"))
        watching = client.watch(build.id)
        async for event in watching:
            if isinstance(event, LogPiece):
                assert [task for task in asyncio.all_tasks() if "imagepool/client" in str(task)]
                break
        await watching.aclose()
        going = [task for task in asyncio.all_tasks() if "imagepool/client" in str(task)]
        assert not going
        assert (await client.get(build.id)).state is State.RUNNING
        assert (await client.cancel(build.id)).id == build.id


@pytest.mark.gen_test(timeout=60)
async def test_a_build_that_waits_long_is_followed_all_the_same(tmp_path) -> None:
    """Following begins while the build is queued behind another one."""
    async with a_pool(tmp_path, slots=1) as pool, AsyncClient(pool.url) as client:
        first = await client.submit(recipe("hang"))
        second = await client.submit(recipe("print mine"))
        reading = asyncio.create_task(_text(client, second.id, follow=True))
        await client.cancel(first.id)
        assert (await reading).startswith(b"mine\n")


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("follow", [True, False])
async def test_the_log_of_one_command(tmp_path, follow) -> None:
    """By number or name, while it runs or afterwards; only what that one printed."""
    async with a_pool(tmp_path) as pool, AsyncClient(pool.url) as client:
        build = await client.submit(recipe("print one", "print two\nsleep 0.2\nprint 2", "print 3"))
        if not follow:
            await client.wait(build.id)
        assert await _text(client, build.id, follow=follow, command=2) == b"two\n2\n"
        assert await _text(client, build.id, follow=follow, command="step 1") == b"one\n"
        with pytest.raises(NotFound, match="no command 4") as refused:
            await _text(client, build.id, command=4)
        assert refused.value.field == "command"


@pytest.mark.gen_test(timeout=60)
async def test_a_download_is_whole_and_checked(tmp_path) -> None:
    """The file has the digest; progress ends at its size; no part is left."""
    told: list[tuple[int, int]] = []
    async with a_pool(tmp_path) as pool, AsyncClient(pool.url) as client:
        build = await client.wait((await client.submit(recipe("artifact 300001", output=True))).id)
        (tmp_path / "out").mkdir()
        target = tmp_path / "out" / "x.iso"
        artifact = await client.download(
            build.id, target, progress=lambda there, whole: told.append((there, whole))
        )
        parts = [piece async for piece in client.read(build.id, start=300000)]
        assert hashlib.sha256(target.read_bytes()).hexdigest() == artifact.sha256
        assert b"".join(parts) == target.read_bytes()[-1:]
        assert told[-1] == (300001, 300001)
        assert [file.name for file in target.parent.iterdir()] == ["x.iso"]
        with pytest.raises(NotFound, match="no artifact 'y'"):
            await client.download(build.id, target, name="y")


@pytest.mark.gen_test(timeout=60)
async def test_a_part_that_is_wrong_is_not_kept(tmp_path) -> None:
    """What somebody else left in its place does not become the file; the next try is right."""
    async with a_pool(tmp_path) as pool, AsyncClient(pool.url) as client:
        build = await client.wait((await client.submit(recipe("artifact 5000", output=True))).id)
        target = tmp_path / "x.iso"
        digest = build.artifacts[0].sha256
        (tmp_path / f".x.iso.{digest[:16]}.part").write_bytes(b"wrong")
        with pytest.raises(Conflict, match="wrong digest"):
            await client.download(build.id, target)
        assert not target.exists()
        await client.download(build.id, target)
        assert hashlib.sha256(target.read_bytes()).hexdigest() == digest


@pytest.mark.gen_test(timeout=60)
async def test_pages_are_walked_to_the_end(tmp_path) -> None:
    """All builds, newest first, whatever a page holds."""
    async with a_pool(tmp_path) as pool, AsyncClient(pool.url) as client:
        made = [(await client.submit(recipe("print x"))).id for _ in range(5)]
        for build_id in made:
            await client.wait(build_id)
        page = await client.page(BuildQuery(limit=2))
        assert [build.id for build in page.builds] == made[:-3:-1]
        assert [build.id async for build in client.builds()] == made[::-1]


@pytest.mark.gen_test(timeout=60)
async def test_nodes_are_cordoned_by_name(tmp_path) -> None:
    """And a build that waits says why."""
    async with a_pool(tmp_path) as pool, AsyncClient(pool.url) as client:
        (node,) = (await client.nodes()).nodes
        await client.cordon(node.name, "new fan")
        assert [entry.state for entry in (await client.nodes()).nodes] == ["cordoned"]
        build = await client.submit(recipe("print x"))
        explanation = await client.explain(build.id)
        assert [refusal.reason for refusal in explanation.refusals] == ["it is cordoned: new fan"]
        await client.uncordon(node.name)
        assert (await client.wait(build.id, timeout=20)).result is Result.SUCCEEDED


@pytest.mark.gen_test(timeout=60)
async def test_waiting_ends_when_it_was_said_to(tmp_path) -> None:
    """TimeoutError; the build goes on."""
    async with a_pool(tmp_path) as pool, AsyncClient(pool.url) as client:
        build = await client.submit(recipe("hang"))
        with pytest.raises(TimeoutError, match=r"after 0\.2 s"):
            await client.wait(build.id, timeout=0.2)
        assert (await client.cancel(build.id)).id == build.id


@pytest.mark.gen_test
async def test_a_pool_that_never_answered_is_not_waited_for() -> None:
    """A refused connection is told at once, whatever the persistence."""
    async with AsyncClient(f"http://127.0.0.1:{free_port()}", persistence=1000) as client:
        with pytest.raises(Unreachable):
            await client.submit(recipe("print x"))


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"recipe": {"commands": [{"name": 1}]}}, "recipe.commands[0].name"),
        ({"commands": [{"name": "a", "arguments": []}]}, "commands[0].command"),
        ({"recipe": {}, "guidance": {"priority": 5000}}, "guidance.priority"),
        ({"recipes": {}}, "recipes"),
        (BuildRequest(secrets=("word",)), "secrets.word"),
    ],
)
@pytest.mark.gen_test
async def test_what_is_wrong_is_named_before_anything_is_sent(wanted, field) -> None:
    """Invalid, with field and what was expected."""
    async with AsyncClient("http://127.0.0.1:1") as client:
        with pytest.raises(Invalid) as refused:
            await client.submit(wanted)
        assert refused.value.field == field
        assert refused.value.expected


# The plain client


def _plainly(pool: Program, folder: Path) -> None:
    with Client(pool.url) as client:
        build = client.submit(recipe("print one\nartifact 5000", output=True))
        *_, last = client.watch(build.id)
        assert isinstance(last, Changed)
        assert last.build.result is Result.SUCCEEDED
        assert list(client.lines(build.id, command=1)) == ["one"]
        artifact = client.download(build.id, folder / "plain.iso")
        assert (folder / "plain.iso").stat().st_size == artifact.size == 5000
        hanging = client.submit(recipe("print one\nhang"))
        for piece in client.log(hanging.id, follow=True):
            assert piece.data == b"one\n"
            break
        client.cancel(hanging.id)
        assert {build.id, hanging.id} == {each.id for each in client.builds()}
        with pytest.raises(NotFound):
            client.get("ff")
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.get(build.id)


@pytest.mark.gen_test(timeout=60)
async def test_the_plain_client_does_the_same(tmp_path) -> None:
    """Without an event loop of its user's; closed twice; not usable afterwards."""
    async with a_pool(tmp_path) as pool:
        await asyncio.to_thread(_plainly, pool, tmp_path)


def test_a_plain_client_that_nobody_closes_ends_with_its_program() -> None:
    """Without a word, and at once."""
    code = "import imagepool; client = imagepool.Client('http://127.0.0.1:1')"
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code], capture_output=True, timeout=30, check=True
    )
    assert (ran.stdout, ran.stderr) == (b"", b"")


def test_both_clients_have_the_same_methods() -> None:
    """With the same arguments and words; what is awaited on one side is answered on the other."""
    plain_ones, of_pool = (
        {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"}
        for kind in (Client, AsyncClient)
    )
    assert plain_ones == of_pool
    for name in of_pool - {"close"}:
        plain, other = getattr(Client, name), getattr(AsyncClient, name)
        assert inspect.signature(plain).parameters == inspect.signature(other).parameters, name
        assert plain.__doc__ == other.__doc__
        assert plain.__doc__, name


@pytest.mark.slow
def test_mypy_sees_the_signatures_of_both() -> None:
    """Answers have their types, and wrong arguments are errors (tests/client/typed.py)."""
    command = [sys.executable, "-m", "mypy", "--warn-unused-ignores", "tests/client/typed.py"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    about = [line for line in ran.stdout.splitlines() if line.startswith("tests/client/typed.py")]
    assert not about, ran.stdout
    assert "checked 1 source file" in ran.stdout or "no issues" in ran.stdout, ran.stdout


async def _text(client: AsyncClient, build_id: str, **how: object) -> bytes:
    return b"".join([piece.data async for piece in client.log(build_id, **how)])  # type: ignore[arg-type]
