"""The scheduler is killed at every point of a create: the client repeats it with its key, and there
is one build, which runs once.
"""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from protocol.model.build import Build, Result, State
from tests.chaos.client import Client
from tests.chaos.journal import ends, plays, starts
from tests.chaos.local import Program, a_node, a_scheduler, begin_all, end_all, free_port
from tests.chaos.proxy import Hold, Proxy
from tests.figures import Figures
from tests.programs import request

pytestmark = [pytest.mark.system, pytest.mark.chaos, pytest.mark.gen_test(timeout=120)]

CREATES, CLIENTS, KILLS = 1000, 24, 20
Programs = tuple[Program, Program, int]
_keys = itertools.count()


class Point:
    """A create under way in a pool of a scheduler and a node, with a proxy before each; a context
    manager.
    """

    def __init__(self, scheduler: Program, node: Program, port: int) -> None:
        """`port`: where the scheduler looks for the node."""
        self.scheduler = scheduler
        self.node = node
        self.before_scheduler = Proxy(free_port(), scheduler.port)
        self.before_node = Proxy(port, node.port)
        self.client = Client(self.before_scheduler.url)
        self.other = Client(scheduler.url)
        self.key = f"key-{next(_keys)}"
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Point":
        for part in (self.before_scheduler, self.before_node, self.client, self.other):
            await self._stack.enter_async_context(part)
        await self.other.has_ready(1)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def hold_create(self, where: str) -> Hold:
        """What goes between client and scheduler."""
        return self.before_scheduler.hold("POST", "/api/v1/builds", where)

    def hold_forward(self, where: str) -> Hold:
        """What goes between scheduler and node."""
        return self.before_node.hold("POST", "/create", where)

    def create(self) -> "asyncio.Task[Build]":
        """The client's create, repeated until it is answered."""
        return asyncio.create_task(self.client.create(request("print hello"), self.key))

    async def known(self) -> list[str]:
        """Ids of the builds that the scheduler knows by our key."""
        builds = await self.other.all()
        return [key for key, build in builds.items() if build.key == self.key]

    async def start_again(self) -> None:
        """Kill the scheduler at this moment, and begin it again."""
        await self.scheduler.killed()
        await self.before_scheduler.cut()
        await self.scheduler.begun()

    async def ran_once(self, create: "asyncio.Task[Build]", *, repeated: bool) -> None:
        """The client has one build, for which it repeated itself or not; it ends, and ran once."""
        build = await self.other.ended((await create).id)
        assert build.result is Result.SUCCEEDED, build
        assert await self.known() == [build.id]
        assert (self.client.tries > 1) == repeated
        played = plays(self.node.data)
        assert (starts(played)[build.id], ends(played)[build.id]) == (1, 1)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """A scheduler, a node, and the port where the scheduler looks for it."""
    folder = tmp_path_factory.mktemp("points")
    port = free_port()
    node = a_node(folder / "node")
    scheduler = a_scheduler(folder / "scheduler", f"http://127.0.0.1:{port}")
    try:
        begin_all([node, scheduler])
        yield scheduler, node, port
    finally:
        end_all([node, scheduler])


async def test_killed_before_the_write(programs: Programs) -> None:
    """Half of the request has arrived: nothing is known of it, the repeated one is the build."""
    async with Point(*programs) as point:
        held = point.hold_create("half")
        create = point.create()
        await held.reached.wait()
        await point.start_again()
        await point.ran_once(create, repeated=True)


async def test_killed_after_the_write(programs: Programs) -> None:
    """It is on disk, not placed, and the client has not heard: the repeated create answers it."""
    async with Point(*programs) as point:
        await point.before_node.refuse()
        await point.other.has_ready(0)
        held = point.hold_create("reply")
        create = point.create()
        await held.reached.wait()
        known = await point.known()
        await point.start_again()
        assert [(await create).id] == known
        await point.before_node.accept()
        await point.ran_once(create, repeated=True)


async def test_killed_before_the_forward_arrives(programs: Programs) -> None:
    """It is placed, its forward under way and very late: it runs once, by whichever comes first."""
    async with Point(*programs) as point:
        forward = point.hold_forward("request")
        held = point.hold_create("reply")
        create = point.create()
        await asyncio.gather(forward.reached.wait(), held.reached.wait())
        await point.start_again()
        await point.ran_once(create, repeated=True)
        again = point.hold_forward("reply")
        forward.let_go()
        await again.reached.wait()
        await point.ran_once(create, repeated=True)


async def test_killed_after_the_forward(programs: Programs) -> None:
    """The node has it, the scheduler has not heard that, nor has the client of the scheduler."""
    async with Point(*programs) as point:
        forward = point.hold_forward("reply")
        held = point.hold_create("reply")
        create = point.create()
        await asyncio.gather(forward.reached.wait(), held.reached.wait())
        await point.start_again()
        await point.ran_once(create, repeated=True)


async def test_killed_before_the_reply(programs: Programs) -> None:
    """It has even ended, and the client has not heard that there is such a build."""
    async with Point(*programs) as point:
        held = point.hold_create("reply")
        create = point.create()
        await held.reached.wait()
        (known,) = await point.known()
        await point.other.ended(known)
        await point.start_again()
        assert (await create).id == known
        await point.ran_once(create, repeated=True)


async def test_killed_after_the_reply(programs: Programs) -> None:
    """The client has its answer, and need not repeat anything."""
    async with Point(*programs) as point:
        create = point.create()
        await create
        await point.start_again()
        await point.ran_once(create, repeated=False)


async def test_a_thousand_creates_while_the_scheduler_is_killed(
    tmp_path: Path, figures: Figures
) -> None:
    """Killed at 20 moments of them, which 24 clients make: a thousand builds, each run once."""
    nodes = [a_node(tmp_path / f"node{number}") for number in range(3)]
    urls = [node.url for node in nodes]
    scheduler = a_scheduler(tmp_path / "scheduler", *urls, silent_after=9.0, lost_after=30.0)
    try:
        begin_all([*nodes, scheduler])
        tries = await _create_all(scheduler, [node.data for node in nodes])
        figures(
            f"{CREATES} creates by {CLIENTS} clients, scheduler killed {KILLS} times: "
            f"{tries} tries, {CREATES} builds, each run once"
        )
    finally:
        end_all([*nodes, scheduler])


async def _create_all(scheduler: Program, journals: list[Path]) -> int:
    """How many tries it took."""
    numbers = iter(range(CREATES))
    heard: dict[int, str] = {}  # number of the create -> build
    due = sorted(random.Random(3).sample(range(1, CREATES), KILLS))
    more = asyncio.Condition()

    async def create(client: Client) -> None:
        for number in numbers:
            build = await client.create(request(f"print {number}"), f"create-{number}")
            async with more:
                heard[number] = build.id
                more.notify_all()

    async def kill() -> None:
        for count in due:
            async with more:
                await more.wait_for(partial(_has, heard, count))
            await scheduler.killed()
            await scheduler.begun()

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(scheduler.url)) for _ in range(CLIENTS)]
        await clients[0].has_ready(len(journals))
        await asyncio.gather(kill(), *map(create, clients))
        builds = await clients[0].all_ended(heard.values())
        _check(await clients[0].all(), builds, heard, journals)
        return sum(client.tries for client in clients)


def _has(heard: dict[int, str], count: int) -> bool:
    return len(heard) >= count


def _check(
    known: dict[str, Build], builds: dict[str, Build], heard: dict[int, str], journals: list[Path]
) -> None:
    assert len(heard) == len(set(heard.values())) == CREATES
    assert known.keys() == builds.keys(), "builds that no client heard of"
    assert {(b.state, b.result) for b in builds.values()} == {(State.STOPPED, Result.SUCCEEDED)}
    texts = {heard[number]: f"print {number}" for number in heard}
    assert {key: b.request.recipe.commands[0].text for key, b in builds.items()} == texts
    played = plays(*journals)
    assert starts(played) == ends(played) == Counter(heard.values())
