"""What a node tells whoever watches it, beyond what all programs do: slots, disk, engine."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from node.core.capacity import Facts
from protocol.model.build import Build
from protocol.program.metrics import BuildCollector, Check, Metrics, ProgramHealth


class ConditionCollector(Collector):
    """The node's own condition, as its reports go by it."""

    def __init__(self, facts: Callable[[], Facts], images: Callable[[], int]) -> None:
        """`images`: how many images need no pull."""
        self._facts = facts
        self._images = images

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Called for each scrape."""
        facts = self._facts()
        yield GaugeMetricFamily("imagepool_slots", "Builds at the same time", facts.slots)
        yield GaugeMetricFamily("imagepool_slots_used", "Slots that builds have", facts.used)
        yield GaugeMetricFamily(
            "imagepool_disk_free_bytes", "Room where builds are made", facts.disk_free
        )
        yield GaugeMetricFamily(
            "imagepool_disk_reserve_bytes", "Room below which none is taken", facts.disk_reserve
        )
        yield GaugeMetricFamily(
            "imagepool_engine_up",
            "1 where the container engine answers and can work with the node's folder",
            not facts.engine_problem,
        )
        yield GaugeMetricFamily(
            "imagepool_images", "Container images that need no pull", self._images()
        )


def health(
    metrics: Metrics,
    builds: Iterable[Build],
    facts: Callable[[], Facts],
    images: Callable[[], int],
) -> ProgramHealth:
    """The node's health; its registry has all metrics from now on. A node whose slots are all used
    is ready: it works.
    """
    metrics.registry.register(BuildCollector(builds))
    metrics.registry.register(ConditionCollector(facts, images))
    return ProgramHealth(
        metrics,
        {
            "program": _check(facts, lambda now: "it is shutting down" if now.leaving else ""),
            "engine": _check(facts, lambda now: now.engine_problem),
            "network": _check(facts, lambda now: now.network_problem),
            "slots": _check(facts, lambda now: "" if now.slots else "it has no slots"),
            "disk": _check(facts, _disk),
        },
    )


def _check(facts: Callable[[], Facts], problem: Callable[[Facts], str]) -> Check:
    async def check() -> str:
        return problem(facts())

    return check


def _disk(facts: Facts) -> str:
    if facts.disk_free >= facts.disk_reserve:
        return ""
    return f"{facts.disk_free >> 20} MiB are free, {facts.disk_reserve >> 20} MiB must be"
