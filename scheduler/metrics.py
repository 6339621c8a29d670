"""What a scheduler tells whoever watches it, beyond what all programs do: its nodes."""

import collections
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from protocol.model.build import Build
from protocol.model.messages import Roster
from protocol.program.metrics import BuildCollector, Check, Metrics, ProgramHealth

STATES = (
    "ready",
    "busy",
    "silent",
    "lost",
    "refused",
    "quarantined",
    "cordoned",
    "drained",
    "unanswered",
)
"""Every state that a node has on the roster."""
_WORKING = ("ready", "busy")
_NAMED = 3  # nodes of which the reason is told


class PoolCollector(Collector):
    """The nodes, as the roster has them."""

    def __init__(
        self, roster: Callable[[], Roster], clock: Callable[[], float] = time.time
    ) -> None:
        """`clock`: seconds since the epoch."""
        self._roster = roster
        self._clock = clock

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Called for each scrape."""
        roster = self._roster()
        yield _by_state(roster)
        working = [node for node in roster.nodes if node.state in _WORKING]
        yield GaugeMetricFamily(
            "imagepool_pool_slots",
            "Slots of the nodes that are ready or busy",
            sum(node.slots for node in working),
        )
        yield GaugeMetricFamily(
            "imagepool_pool_slots_used",
            "Slots of these that builds have",
            sum(node.used for node in working),
        )
        yield from _by_node(roster, self._clock())


def _by_state(roster: Roster) -> GaugeMetricFamily:
    number = collections.Counter(node.state for node in roster.nodes)
    family = GaugeMetricFamily("imagepool_nodes", "Nodes on the roster", labels=("state",))
    for state in dict.fromkeys((*STATES, *number)):
        family.add_metric((state,), number[state])
    return family


def _by_node(roster: Roster, now: float) -> Iterator[GaugeMetricFamily]:
    """By id, for two nodes may have one name; nodes that never answered have neither."""
    labels = ("node", "name")
    seen = GaugeMetricFamily(
        "imagepool_node_last_seen_timestamp_seconds", "When the node answered last", labels=labels
    )
    clock = GaugeMetricFamily(
        "imagepool_node_clock_difference_seconds",
        "How far the node's clock is ahead of the scheduler's",
        labels=labels,
    )
    for node in roster.nodes:
        if node.id and node.last_seen is not None:
            seen.add_metric((node.id, node.name), now - node.last_seen)
        if node.id and node.clock is not None:
            clock.add_metric((node.id, node.name), node.clock)
    yield seen
    yield clock


def health(
    metrics: Metrics,
    builds: Iterable[Build],
    roster: Callable[[], Roster],
    leaving: Callable[[], bool],
    checks: Mapping[str, Check],
) -> ProgramHealth:
    """The scheduler's health, `checks` being those of its further parts, such as its store; its
    registry has all metrics from now on.
    """
    metrics.registry.register(BuildCollector(builds))
    metrics.registry.register(PoolCollector(roster))

    async def program() -> str:
        return "it is shutting down" if leaving() else ""

    async def pool() -> str:
        return without_nodes(roster())

    return ProgramHealth(metrics, {"program": program, "pool": pool, **checks})


def without_nodes(roster: Roster) -> str:
    """Why no node of the pool builds anything; empty where one does."""
    if any(node.state in _WORKING for node in roster.nodes):
        return ""
    if not roster.nodes:
        return "it has no nodes"
    named = [
        f"{node.name or node.url} is {node.state}" + (f" ({node.reason})" if node.reason else "")
        for node in roster.nodes[:_NAMED]
    ]
    further = len(roster.nodes) - len(named)
    more = f" and {further} more" if further else ""
    return f"none of its nodes builds: {', '.join(named)}{more}"
