"""A pool of dummy-engine nodes behind proxies, and a schedule played on it: clients want builds,
faults befall the programs, then all is healed and every build has to end.
"""

import asyncio
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec import Struct

from protocol.errors import PoolError
from protocol.model.build import Build, State
from protocol.model.messages import Roster
from protocol.model.recipe import IsoOutput
from protocol.ports.service import LOCAL
from tests.chaos.client import Client, have_ended
from tests.chaos.local import Program, a_node, a_scheduler, begin_all, end_all, free_port
from tests.chaos.proxy import Proxy
from tests.chaos.schedule import OWNERS, SCHEDULER, Fault, Schedule, Wish
from tests.programs import request

_TIMES = {"hold": 0.4, "patience": 0.4, "retry": 0.1, "silent_after": 0.6, "lost_after": 1.2}
_LIMITS = {"attempts": 50, "quarantine": 0.2, "quarantine_limit": 0.5}
_HEALED = 40.0  # seconds that every build has to end when all is healed
_SHOWN = 5  # builds whose history is told where something is wrong


class Programs:
    """The processes: a scheduler, and nodes that it reaches by ports of proxies."""

    def __init__(self, folder: Path, *clocks: float) -> None:
        """`clocks`: seconds that each node's clock is ahead."""
        self.nodes = {
            f"node{number}": a_node(folder / f"node{number}", slots=6, clock=clock)
            for number, clock in enumerate(clocks)
        }
        self.ports = {name: free_port() for name in self.nodes}
        urls = [f"http://127.0.0.1:{port}" for port in self.ports.values()]
        self.scheduler: Program = a_scheduler(folder / SCHEDULER, *urls, **_TIMES, **_LIMITS)
        self.all = [*self.nodes.values(), self.scheduler]

    def begin(self) -> None:
        """Start all."""
        begin_all(self.all)

    def end(self) -> None:
        """End all."""
        end_all(self.all)


class Outcome(Struct):
    """What came of a schedule, as clients and watchers saw it."""

    heard: dict[str, str]  # key of the create -> id of the build that was acknowledged
    answers: dict[str, Build]  # id -> what a client that cancelled was answered
    results: defaultdict[str, set[str]]  # id -> every way in which it was ever seen to have ended
    builds: dict[str, Build]  # all that the scheduler knows in the end, of this schedule
    roster: Roster
    done: Counter[str]  # to messages
    digests: list[tuple[str, str, str]]  # id, digest as stated, digest as downloaded


class Turmoil:
    """One schedule, played; a context manager."""

    def __init__(self, programs: Programs, schedule: Schedule) -> None:
        self.schedule = schedule
        self._programs = programs
        self._proxies = {
            name: Proxy(programs.ports[name], node.port) for name, node in programs.nodes.items()
        }
        self._clients = {owner: Client(programs.scheduler.url, owner) for owner in OWNERS}
        self._heard: dict[str, str] = {}
        self._answers: dict[str, Build] = {}
        self._results: defaultdict[str, set[str]] = defaultdict(set)
        self._stack = AsyncExitStack()
        self._began = 0.0

    async def __aenter__(self) -> "Turmoil":
        for proxy in self._proxies.values():
            await self._stack.enter_async_context(proxy)
        for client in self._clients.values():
            await self._stack.enter_async_context(client)
        await self._anyone.has_ready(len(self._proxies))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def play(self) -> Outcome:
        """From the first wish until nothing moves any more."""
        self._began = asyncio.get_running_loop().time()
        faults = defaultdict(list)
        for fault in self.schedule.faults:
            faults[fault.target].append(fault)
        wishing = asyncio.gather(*map(self._fulfil, self.schedule.wishes))
        watching = asyncio.create_task(self._anyone.watch(self._all_ended, self._see, 120))
        try:
            await asyncio.gather(*map(self._befall_one, faults.values()))
            await self._heal()
            await wishing
            async with asyncio.timeout(_HEALED):
                found = await watching
        finally:
            watching.cancel()
            wishing.cancel()
            await asyncio.gather(watching, wishing, return_exceptions=True)
        roster = await self._anyone.roster_until(_at_rest)
        return Outcome(
            heard=self._heard,
            answers=self._answers,
            results=self._results,
            builds={key: b for key, b in found.items() if self._is_ours(b)},
            roster=roster,
            done=sum((proxy.done for proxy in self._proxies.values()), Counter()),
            digests=await self._sample(found),
        )

    # Clients

    @property
    def _anyone(self) -> Client:
        return self._clients[OWNERS[0]]

    async def _fulfil(self, wish: Wish) -> None:
        await self._at(wish.at)
        client = self._clients[wish.owner]
        asked = request(*wish.lines, output=IsoOutput() if wish.image else None)
        build = await client.create(asked, wish.key)
        self._heard[wish.key] = build.id
        if wish.cancel is not None:
            await asyncio.sleep(wish.cancel)
            self._answers[build.id] = await client.cancel(build.id)

    def _see(self, build: Build) -> None:
        if build.state is State.STOPPED:
            digests = [artifact.sha256 for artifact in build.artifacts]
            end = f"{build.result} of attempt {build.attempt} at {build.stopped}: {digests}"
            self._results[build.id].add(end)

    def _all_ended(self, found: dict[str, Build]) -> bool:
        return len(self._heard) == len(self.schedule.wishes) and have_ended(
            found, self._heard.values()
        )

    def _is_ours(self, build: Build) -> bool:
        return build.key.startswith(f"{self.schedule.seed}.")

    async def _sample(self, found: dict[str, Build]) -> list[tuple[str, str, str]]:
        images = [build for build in found.values() if self._is_ours(build) and build.artifacts]
        client = self._anyone
        return [
            (build.id, *await client.digest(build)) for build in images[:: len(images) // 10 or 1]
        ]

    # Faults

    async def _at(self, moment: float) -> None:
        await asyncio.sleep(self._began + moment - asyncio.get_running_loop().time())

    async def _befall_one(self, faults: list[Fault]) -> None:
        """What happens to one program, one thing after another."""
        for fault in faults:
            await self._at(fault.at)
            if fault.target == SCHEDULER:
                await self._befall(fault, self._programs.scheduler, None)
            else:
                program = self._programs.nodes[fault.target]
                await self._befall(fault, program, self._proxies[fault.target])

    async def _befall(self, fault: Fault, program: Program, proxy: Proxy | None) -> None:
        match fault.what:
            case "kill":
                await program.killed()
                if proxy:
                    await proxy.refuse()
                await asyncio.sleep(fault.length)
                await program.begun()
                if proxy:
                    await proxy.accept()
                return
            case "stop":
                program.stop()
                await asyncio.sleep(fault.length)
                program.go_on()
                return
        assert proxy is not None
        await _disturb(fault, proxy)

    async def _heal(self) -> None:
        """Nothing bad happens any more."""
        for proxy in self._proxies.values():
            proxy.heal()

    # Where something is wrong

    async def told(self, ids: list[str]) -> str:
        """The history of these builds, and the last words of every program."""
        lines = []
        for key in ids[:_SHOWN]:
            try:
                explanation = await self._anyone.service.explain(LOCAL, key)
            except PoolError as error:
                lines.append(f"{key}: {error.detail}")
                continue
            lines.append(f"{key}: {explanation.status.value}, {explanation.reason}")
            lines += [
                f"    {s.at:.3f} {s.event} {s.stage.value} {s.cause}" for s in explanation.history
            ]
        for program in self._programs.all:
            lines += [f"--- {program.name}", program.words()]
        return "\n".join(lines)


async def _disturb(fault: Fault, proxy: Proxy) -> None:
    match fault.what:
        case "lose replies":
            proxy.lose_replies += fault.count
        case "repeat requests":
            proxy.repeat_requests += fault.count
        case "cut":
            await proxy.cut()
        case "slow":
            proxy.delay = fault.count / 10
            await asyncio.sleep(fault.length)
            proxy.delay = 0.0
        case "part" | "part to" | "part back":
            proxy.part(*(fault.what.split()[1:] or ("to", "back")))
            await asyncio.sleep(fault.length)
            proxy.join()


def _at_rest(roster: Roster) -> bool:
    """Nothing waits, nothing runs, and all nodes are ready."""
    quiet = all(n.state == "ready" and not n.used and not n.builds for n in roster.nodes)
    return quiet and not roster.waiting and not roster.running
