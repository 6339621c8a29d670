"""What can happen to the pool of `machine_world.py`, each drawn by two numbers and a flag that
choose among what there is.
"""

import random
from collections.abc import Callable, Iterable
from typing import TypeVar

from protocol.errors import Unavailable, Unreachable
from tests.chaos.machine_engine import End
from tests.chaos.machine_loop import Life
from tests.chaos.machine_network import Call
from tests.chaos.machine_world import World

NUMBERS = 8
"""Numbers are below this."""
_ENDS = (End.WELL, End.USER, End.OWN, End.ENGINE)
_SEVERAL = 5  # messages or writes at once, at most

T = TypeVar("T")
Happening = Callable[[World, int, int, bool], None]


def pick(values: Iterable[T], number: int) -> T:
    """One of them."""
    values = tuple(values)
    return values[number % len(values)]


# Clients


def create(world: World, one: int, other: int, flag: bool) -> None:
    """A build at a scheduler, with a key or without."""
    world.create(pick(world.files, one), f"key{other % 2}" if flag else "")


def create_directly(world: World, one: int, other: int, flag: bool) -> None:
    """A build at a node."""
    world.create(pick(world.machines, one))


def cancel(world: World, one: int, other: int, flag: bool) -> None:
    """Any build, by a client."""
    world.cancel(one)


# Messages


def hold_messages(world: World, one: int, other: int, flag: bool) -> None:
    """Time passes, and nothing arrives."""
    world.pass_time(10 if flag else 2, work=False)


def deliver(world: World, one: int, other: int, flag: bool) -> None:
    """Some messages arrive, and no others."""
    for _ in range(1 + other % _SEVERAL):
        world.deliver(one)


def repeat(world: World, one: int, other: int, flag: bool) -> None:
    """A request of some time ago arrives once more."""
    world.network.repeat(one)


def repeat_report(world: World, one: int, other: int, flag: bool) -> None:
    """A report of some time ago is heard once more."""
    world.hear(one + NUMBERS * (other % 3))


def lose(world: World, one: int, other: int, flag: bool) -> None:
    """A request, or its answer. Its sender may know for certain that it was not heard."""
    if calls := _precious(world.network.deliverable()):
        call = pick(calls, one)
        kind = Unreachable if flag and not call.taken else Unavailable
        world.network.lose(call, kind("lost"))


def give_up(world: World, one: int, other: int, flag: bool) -> None:
    """A sender does not wait any more; its request is still under way."""
    if calls := _precious(world.network.deliverable(late=False)):
        world.network.give_up(pick(calls, one))


def _precious(calls: list[Call]) -> list[Call]:
    """Not polls, where there is anything else."""
    return [call for call in calls if call.verb != "status"] or calls


def cut_or_mend(world: World, one: int, other: int, flag: bool) -> None:
    """Between one scheduler and one node."""
    world.network.cut ^= {(pick(world.files, other), pick(world.machines, one))}


def isolate(world: World, one: int, other: int, flag: bool) -> None:
    """A node, for longer than the pool waits for it."""
    between = {(scheduler, pick(world.machines, one)) for scheduler in world.files}
    world.network.cut |= between
    world.pass_time(12)
    if flag:
        world.network.cut -= between


# Containers and machines


def end_container(world: World, one: int, other: int, flag: bool) -> None:
    """In any way."""
    machine = world.machines[pick(world.machines, one)]
    if boxes := machine.running():
        machine.end(pick(boxes, one), pick(_ENDS, other))


def reboot(world: World, one: int, other: int, flag: bool) -> None:
    """A machine; what ran is gone (flag), or has ended."""
    name = pick(world.machines, one)
    world.crash(name)
    world.machines[name].reboot(gone=flag)
    world.start(name)


# Programs


def crash(world: World, one: int, other: int, flag: bool) -> None:
    """A program is killed, perhaps behind one more write; most often it is started again."""
    name = pick(world.programs, one)
    world.crash(name, half=flag)
    if other % 4:
        world.start(name, made=False)


def start(world: World, one: int, other: int, flag: bool) -> None:
    """What is down."""
    for name in world.programs:
        world.start(name, made=False)


def leave(world: World, one: int, other: int, flag: bool) -> None:
    """A node is told to go."""
    world.leave(pick(world.machines, one))


def back_up(world: World, one: int, other: int, flag: bool) -> None:
    """A copy is made of a scheduler's store."""
    world.back_up(pick(world.files, one))


def lose_store(world: World, one: int, other: int, flag: bool) -> None:
    """A scheduler starts with a new store, or with a copy that was made before."""
    world.lose_store(pick(world.files, one), restored=flag)


# Disks and threads


def slow_down(world: World, one: int, other: int, flag: bool) -> None:
    """From now on a program's writes and threads wait until they are let; or no more."""
    if life := world.lives.get(pick(world.programs, one)):
        if flag:
            life.slow = True
        else:
            life.catch_up()


def work_on(world: World, one: int, other: int, flag: bool) -> None:
    """Some of the writes and threads that wait are done."""
    for _ in range(1 + other % _SEVERAL):
        if slow := _slow(world):
            pick(slow, one).work_on(other)
            world.loop.settle()


def _slow(world: World) -> list[Life]:
    return [life for life in world.lives.values() if life.writes or life.threads]


def spoil_write(world: World, one: int, other: int, flag: bool) -> None:
    """The next write of a program fails."""
    if life := world.lives.get(pick(world.programs, one)):
        life.spoilt = Unavailable("the disk does not take it")


EVENTS: tuple[Happening, ...] = (
    *[create, create_directly, cancel],
    *[deliver, deliver, hold_messages, repeat, repeat_report, lose, give_up],
    *[cut_or_mend, isolate, isolate],
    *[end_container, end_container, reboot, crash, crash, start, leave],
    *[back_up, lose_store],
    *[slow_down, work_on, work_on, spoil_write],
)
"""What is named twice is twice as likely."""
EVENT = {event.__name__: event for event in EVENTS}
AFTER = (None, 0, None, 1, 0, 1, 3, 10)
"""Seconds that pass behind an event; 0: messages arrive; None: not even they."""


def begun(schedulers: int, nodes: int, builds: int) -> World:
    """A pool that is up and has something to do."""
    world = World(schedulers, nodes)
    world.open()
    world.pass_time(2)
    for number in range(builds):
        world.create(pick(world.files, number))
    return world


def happen(world: World, what: str, one: int, other: int, flag: bool, after: int | None) -> None:
    """An event, and what follows in that time."""
    EVENT[what](world, one, other, flag)
    world.loop.settle()
    if after is not None:
        world.pass_time(after)
    world.check()


def walk(seed: int, steps: int = 50) -> None:
    """Events as they come, then peace. Raises Violation."""
    draw = random.Random(seed)
    world = begun(draw.choice((1, 1, 2)), draw.choice((1, 2, 3)), draw.randrange(5))
    try:
        for _ in range(steps):
            what, one, other = pick(EVENTS, draw.randrange(len(EVENTS))), *_two(draw)
            happen(world, what.__name__, one, other, draw.random() < 0.5, draw.choice(AFTER))
        world.come_to_rest()
    finally:
        world.close()


def walk_on(count: int) -> None:
    """So many walks. Raises Violation."""
    for seed in range(count):
        walk(seed)


def _two(draw: random.Random) -> tuple[int, int]:
    return draw.randrange(NUMBERS), draw.randrange(NUMBERS)
