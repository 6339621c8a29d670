"""The network that builds get which have one: by setting the internet and nothing nearer, all that
the engine's own network reaches, or none.

For the first (`internet`) the node has a bridge of its own on the engine, called after the node,
and a firewall before it. Both are looked at again and again, and before each build, and mended
where somebody, or a restart of the engine, has undone them. Where that cannot be had, the node says
why and takes no build: it is never left out in silence. `auto` is the same, but on a node that only
this machine reaches, such as one that somebody tries out without being root: where that cannot
guard its builds from the beginning, it warns and goes on with the engine's own network. A member of
a pool is no such node, whatever it listens on for clients.
"""

import contextlib
import logging
import socket
import threading
from pathlib import Path

from node.config import NodeSettings
from node.core.reach import Reach, allowed_networks, connected, name_servers, rules
from node.engines.base import Engine
from node.engines.errors import EngineDown, EngineError
from node.network.firewall import Firewall, Unguarded
from protocol.program.settings import host_and_port, is_loopback

log = logging.getLogger(__name__)

_RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
"""Where the engine finds whom to ask for names: in the second where the first names this machine
only.
"""
_ROUTES = Path("/proc/net/route")
_NAME = 10  # digits of the node's id in names: an interface's has 15 characters at most
_HINT = (
    "let the node run as root or with CAP_NET_ADMIN beside its engine,"
    ' or set build_network to "open" or "none"'
)


class Outlet:
    """The builds' way out. Its calls block; any thread."""

    def __init__(
        self,
        engine: Engine,
        settings: NodeSettings,
        node: str,
        firewall: Firewall | None = None,
        *,
        member: bool = False,
    ) -> None:
        """`node`: its id; `member`: of a pool, or is to be. Raises Invalid for networks that are
        none.
        """
        self._engine = engine
        self._node = node
        self._allowed = allowed_networks(settings.build_networks_allowed)
        policy = settings.build_network
        self._guarded = policy in ("auto", "internet") and engine.runs_programs
        # Whether it may do without, as long as it has not been seen to work
        alone = is_loopback(host_and_port(settings.listen)[0]) and not member
        self._lenient = policy == "auto" and alone
        self._interface = f"ip-{node[:_NAME]}"
        self._firewall = firewall or Firewall(self._interface, f"IMAGEPOOL-{node[:_NAME]}")
        self._changing = (
            threading.Lock()
        )  # network and rules: two would both put there what is missing

    @property
    def bridge(self) -> str:
        """What the engine calls it; empty where it is the engine's own."""
        return f"imagepool-{self._node[:_NAME]}" if self._guarded else ""

    @property
    def lenient(self) -> bool:
        """Whether builds get the engine's own network where they cannot be guarded."""
        return self._guarded and self._lenient

    def look(self) -> None:
        """See whether `hold` can do its work, and change nothing. Raises Unguarded."""
        if not self._guarded:
            return
        try:
            self._firewall.look()
        except Unguarded as error:
            raise Unguarded(_words(str(error))) from error

    def hold(self) -> None:
        """What builds reach is as the setting says when this returns. Raises Unguarded,
        EngineError.
        """
        with self._changing:
            if not self._guarded:
                return
            try:
                self._guard()
            except Unguarded as error:
                if not self._lenient:
                    raise
                log.warning("builds reach all that this machine does: %s", error)
                self._guarded = False
            self._lenient = False

    def _guard(self) -> None:
        # Rules first: they hold for the bridge from its first moment.
        try:
            self._firewall.hold(rules(self._reach()))
        except Unguarded as error:
            raise Unguarded(_words(str(error))) from error
        self._engine.provide_network(self.bridge, self._interface, self._labels)
        if not _is_here(self._interface):
            raise Unguarded(_words("the engine's networks are not in the node's namespace"))

    def problem(self) -> str:
        """`hold`, and what is wrong; an engine that is away is not this one's to tell."""
        try:
            self.hold()
        except EngineDown:
            return ""
        except EngineError as error:
            return str(error)
        return ""

    def let_go(self) -> None:
        """Take it away, unless a container goes on with it or the engine is away."""
        if self._guarded:
            with self._changing, contextlib.suppress(EngineError):
                if self._engine.remove_network(self.bridge):
                    self._firewall.drop()

    @property
    def _labels(self) -> dict[str, str]:
        return {"imagepool.node": self._node}

    def _reach(self) -> Reach:
        servers = next(filter(None, (name_servers(_text(path)) for path in _RESOLVERS)), ())
        return Reach(self._allowed, servers, connected(_text(_ROUTES)))


def _words(why: str) -> str:
    return f"builds cannot be kept off this machine: {why}; {_HINT}"


def _is_here(interface: str) -> bool:
    try:
        return socket.if_nametoindex(interface) > 0
    except OSError:
        return False


def _text(path: Path) -> str:
    """Of a file of the system's; empty where there is none."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
