"""What stories are told with, of what the machine once found: a world whose end is always the same,
and messages that arrive one by one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from protocol.model.build import Build
from tests.chaos.machine_network import Call
from tests.chaos.machine_world import World

_STEPS = 500  # messages and timers until what is waited for is on its way


@contextmanager
def a_world(nodes: int) -> Iterator[World]:
    """One scheduler; in the end, all that must hold, and every build ends."""
    world = World(1, nodes)
    world.open()
    try:
        world.pass_time(2)
        yield world
        world.check()
        world.come_to_rest()
    finally:
        world.close()


def record(world: World) -> Build:
    """The scheduler's only build, as it is on disk."""
    (kept,) = world.files["s1"].records.values()
    return kept.build


def on_its_way(world: World, verb: str, node: str = "") -> list[Call]:
    """Requests that have not arrived."""
    return [
        call
        for call in world.network.deliverable()
        if call.verb == verb and not call.taken and node in ("", call.node)
    ]


def until_sent(world: World, verb: str, node: str = "") -> Call:
    """Everything else arrives, until such a request is on its way."""
    for _ in range(_STEPS):
        if found := [call for call in on_its_way(world, verb, node) if not call.late]:
            return found[0]
        others = [call for call in world.network.deliverable() if call.verb != verb]
        if others:
            world.network.deliver(others[0])
            world.loop.settle()
        else:
            world.loop.advance(world.loop.next_timer() or 0)
    raise AssertionError(f"no {verb} was sent")


def arrives(world: World, call: Call) -> None:
    """The request, and then its answer."""
    for _ in range(2):
        world.network.deliver(call)
        world.loop.settle()


def lose_sight(world: World, node: str) -> None:
    """For longer than the pool waits for it."""
    world.network.cut.add(("s1", node))
    world.pass_time(12)
