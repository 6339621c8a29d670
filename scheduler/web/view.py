"""What the page shows, as values: nodes and builds in order, figures in words. Pure.

The templates only lay it out.

A line more on the page begins here with a field, and ends in `nodes.html` or `builds.html`.
"""

import json
import shlex

from msgspec import Struct

from protocol.model.build import Build
from protocol.model.messages import Roster, RosterEntry
from scheduler.web import words
from scheduler.web.build_view import BuildView, build_view
from scheduler.web.pieces import (
    Folded,
    Link,
    Reason,
    Segment,
    bar,
    folded,
    reason,
    status_link,
)

NODE_STATES = ("ready", "busy", "silent", "lost", "refused", "quarantined", "cordoned", "drained")
"""In the order of the totals. A state that is not here is shown too, without a sign of its own."""
UNANSWERED = "unanswered"


class NodeView(Struct, frozen=True):
    """A line of the roster."""

    key: str
    name: str
    id: str
    role: str  # said only where it is not a node
    kind: str  # said only where it is not one of ours
    lacks: str
    url: Link
    found: str
    state: str
    reason: Reason
    priority: str
    stated: str  # only where it is not the effective one
    slots: str
    bar: tuple[Segment, ...]
    builds: Folded
    labels: Folded
    architecture: str
    version: str
    seen: str
    latency: str


class Total(Struct, frozen=True):
    """How many nodes or builds are in a state."""

    state: str
    count: int


class PageView(Struct, frozen=True):
    """The whole page."""

    scheduler: str
    title: str
    nodes: tuple[NodeView, ...]
    unanswered: tuple[NodeView, ...]
    builds: tuple[BuildView, ...]
    trouble: Reason  # why the builds cannot be shown
    node_totals: tuple[Total, ...]
    build_totals: tuple[Total, ...]
    slots: str
    bar: tuple[Segment, ...]
    origin: str  # scheme and host, as the browser says them
    base: str  # the path that a proxy puts before ours; mostly empty
    curl: str


def page_view(
    roster: Roster,
    builds: tuple[Build, ...],
    *,
    now: float,
    origin: str,
    base: str = "",
    trouble: str = "",
) -> PageView:
    """Everything on the page. `trouble`: why the builds are not there.

    `now` is in seconds since the epoch, `origin` the URL that clients call us by.
    """
    nodes = sorted(roster.nodes, key=_by_priority)
    answered = [node for node in nodes if node.state != UNANSWERED]
    unanswered = [node for node in nodes if node.state == UNANSWERED]
    states = totals(roster)
    waits = (Total("running", roster.running), Total("waiting", roster.waiting))
    usable = [node for node in answered if node.state in ("ready", "busy")]
    used, slots = sum(node.used for node in usable), sum(node.slots for node in usable)
    counts = ", ".join(f"{total.count} {total.state}" for total in (*states, *waits))
    return PageView(
        scheduler=roster.scheduler,
        title=f"{roster.scheduler}: {counts}",
        nodes=tuple(node_view(node, base) for node in answered),
        unanswered=tuple(node_view(node, base) for node in unanswered),
        builds=tuple(build_view(build, now, base) for build in builds),
        trouble=reason(trouble),
        node_totals=states,
        build_totals=waits,
        slots=f"{used}/{slots}",
        bar=bar(used, slots),
        origin=origin,
        base=base,
        curl=curl_line(origin),
    )


def totals(roster: Roster) -> tuple[Total, ...]:
    """How many nodes are in which state: the ready ones always, the others where there are some."""
    states = [node.state for node in roster.nodes]
    order = dict.fromkeys((*NODE_STATES, *sorted(states)))
    found = (Total(state, states.count(state)) for state in order)
    return tuple(total for total in found if total.count or total.state == "ready")


def _by_priority(node: RosterEntry) -> tuple[float, str, str]:
    """The order of the roster: highest effective priority first, as in placement; then by name."""
    first = float("inf") if node.priority is None else -node.priority
    return first, node.name.casefold(), node.url


def node_view(node: RosterEntry, base: str = "") -> NodeView:
    """A node as it is shown."""
    return NodeView(
        key=node.url,
        name=words.clipped(node.name, 80) or words.short_node(node.id) or "unnamed",
        id=node.id,
        role="" if node.role in ("", "node") else words.clipped(node.role, 20),
        kind=words.clipped(node.kind, 20),
        lacks=words.clipped(", ".join(node.lacks), 200),
        url=_node_link(node.url),
        found=", ".join(node.found),
        state=node.state,
        reason=reason(node.reason),
        priority="" if node.priority is None else str(node.priority),
        stated="" if node.stated_priority in (None, node.priority) else str(node.stated_priority),
        slots=f"{node.used}/{node.slots}" if node.slots > 0 else "",
        bar=bar(node.used, node.slots),
        builds=folded(tuple(status_link(identity, base) for identity in node.builds)),
        labels=folded(tuple(Link(label) for label in node.labels)),
        architecture=words.clipped(node.architecture, 32),
        version=words.clipped(node.version, 40),
        seen="" if node.last_seen is None else words.ago(node.last_seen),
        latency="" if node.latency is None else words.latency(node.latency),
    )


def curl_line(origin: str) -> str:
    """A line that makes an image, to be typed as it stands."""
    script = "#!/bin/bash\n/toiso/command.sh -q\n"
    command = {"name": "build iso", "command": script, "arguments": []}
    body = json.dumps({"redirect": f"{origin}/", "commands": [command]})
    header = shlex.quote("Content-Type: application/json")
    return f"curl {shlex.quote(origin + '/create')} \\\n  -H {header} \\\n  -d {shlex.quote(body)}"


def _node_link(url: str) -> Link:
    """A node's URL leads to its status, but only where it is one that a browser may follow."""
    text = words.clipped(url, 100)
    if not url.lower().startswith(("http://", "https://")):
        return Link(text, title=url)
    return Link(text, url.rstrip("/") + "/status", "what this node states of itself")
