"""The table of metrics in docs/operations.md is what the programs really expose."""

import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from node.core.capacity import Facts
from node.metrics import health as node_health
from protocol.model.messages import Roster, RosterEntry
from protocol.program.metrics import Metrics, Program
from scheduler.metrics import health as scheduler_health

DOCUMENT = Path(__file__).parents[1] / "docs" / "operations.md"
ROW = re.compile(r"^\| `((?:imagepool|process)_\w+)` \| (\w+) \| ([^|]*)\| (\w+) \| [^|]+ \|$")

Shown = dict[str, tuple[str, tuple[str, ...]]]
"""Name as one types it in a query -> type, labels."""


def documented(program: str) -> Shown:
    """The rows that are about this program."""
    rows = [ROW.match(line) for line in DOCUMENT.read_text().splitlines()]
    return {
        row[1]: (row[2], tuple(sorted(re.findall(r"`(\w+)`", row[3]))))
        for row in rows
        if row and row[4] in ("both", program)
    }


def exposed(registry: CollectorRegistry) -> Shown:
    """What a scrape would show."""
    shown = {}
    suffixes = {"counter": "_total", "info": "_info"}
    for family in registry.collect():
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        kind = "gauge" if family.type == "info" else family.type
        name = family.name + suffixes.get(family.type, "")
        shown[name] = (kind, tuple(sorted(labels)))
    return shown


def metrics_of(role: str) -> Metrics:
    """As a program of this role makes them, one request answered."""
    metrics = Metrics(Program("id", "name", role))
    metrics.answered("/healthz", "GET", 200, 0.1)
    return metrics


def test_the_table_of_a_node() -> None:
    """Name, type and labels of each, and none besides."""
    facts = Facts(slots=1, used=0)
    health = node_health(metrics_of("node"), (), lambda: facts, lambda: 0)
    assert exposed(health.registry) == documented("node")


def test_the_table_of_a_scheduler() -> None:
    """Name, type and labels of each, and none besides."""
    node = RosterEntry("http://n", ("mdns",), "ready", "", id="n", last_seen=1.0, clock=0.0)
    roster = Roster("name", (node,), waiting=0, running=0)
    health = scheduler_health(metrics_of("scheduler"), (), lambda: roster, lambda: False, {})
    assert exposed(health.registry) == documented("scheduler")
