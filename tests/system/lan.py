"""A LAN for a test: hosts that are network namespaces, each with a cable to one switch, a bridge
in a namespace of its own. Nothing of it is ever in the host's own network namespace, where the
container engine's firewall would drop what crosses a second bridge.

    with a_lan("scheduler", "anvil") as lan:
        lan["anvil"].start("imagepool", "node")        # a process in the namespace
        lan["scheduler"].run(client.roster())          # a coroutine whose sockets are there
        lan["anvil"].link_down()
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, TypeVar

from tests.system.namespaces import STEP, Inside, a_prefix, entering, ip, script_in, sweep, tc
from tests.system.processes import Process

T = TypeVar("T")

NETWORK = "10.213.0."
NETWORK6 = "fd00:213::"


class Lan:
    """The hosts of one LAN, by name. Made by `a_lan`."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.switch = f"{prefix}-switch"
        self._hosts: dict[str, Host] = {}
        ip(f"netns add {self.switch}")
        # Without IPv6 of its own the bridge stays a switch; it forwards at once, all multicast too.
        script_in(self.switch, "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
        ip(
            "link add switch type bridge forward_delay 0 mcast_snooping 0",
            "link set switch up",
            namespace=self.switch,
        )

    def __getitem__(self, name: str) -> "Host":
        return self._hosts[name]

    def add(self, name: str, *, ipv4: bool = True, ipv6: bool = True) -> "Host":
        """One more host, its cable plugged in."""
        host = Host(self, name, len(self._hosts) + 1, ipv4=ipv4, ipv6=ipv6)
        self._hosts[name] = host
        host.open()
        return host

    def close(self) -> None:
        """End every process; the namespaces go with the prefix."""
        for host in self._hosts.values():
            host.ask_to_end()
        with contextlib.ExitStack() as ending:
            for host in self._hosts.values():
                ending.callback(host.close)


class Host:
    """A machine on the LAN: a network namespace, with `eth0` on the switch."""

    def __init__(self, lan: Lan, name: str, number: int, *, ipv4: bool, ipv6: bool) -> None:
        self.name = name
        self.namespace = f"{lan.prefix}-{name}"
        self.address = f"{NETWORK}{number}" if ipv4 else ""
        self.address6 = f"{NETWORK6}{number:x}" if ipv6 else ""
        self._switch, self._port = lan.switch, f"port{number}"
        self._processes: list[Process] = []
        self._inside: Inside | None = None
        self._last: list[Callable[[], Coroutine[Any, Any, None]]] = []

    def open(self) -> None:
        """Called by `Lan.add`."""
        ip(f"netns add {self.namespace}")
        # Addresses are good at once, and IPv6 ones outlive an unplugged cable as IPv4 ones do.
        settings = {"accept_dad": 0, "keep_addr_on_down": 1, "disable_ipv6": int(not self.address6)}
        for key, value in settings.items():
            self.set(f"net/ipv6/conf/default/{key}", value)
        ip(
            f"link add {self._port} type veth peer name eth0 netns {self.namespace}",
            f"link set {self._port} master switch up",
            namespace=self._switch,
        )
        self.ip("link set lo up")
        if self.address:
            self.ip(f"address add {self.address}/24 dev eth0")
        if self.address6:
            self.ip(f"address add {self.address6}/64 dev eth0 nodad")
        self.link_up()
        self._inside = Inside(self.namespace)

    def ip(self, *commands: str) -> None:
        """Commands of iproute2, as root of this machine types them."""
        ip(*commands, namespace=self.namespace)

    def set(self, key: str, value: int) -> None:
        """A kernel setting of this host, by its path under /proc/sys."""
        script_in(self.namespace, f"echo {value} > /proc/sys/{key}")

    def link_down(self) -> None:
        """Take the interface down: nothing comes in or goes out, routes are gone."""
        self.ip("link set eth0 down")

    def link_up(self) -> None:
        """Take it up, with the routes that a machine has."""
        self.ip("link set eth0 up")
        if self.address:
            self.ip("route replace 224.0.0.0/4 dev eth0")

    def unplug(self) -> None:
        """Pull the cable at the switch: the machine keeps addresses and routes, without carrier."""
        ip(f"link set {self._port} down", namespace=self._switch)

    def plug_in(self) -> None:
        """Put the cable back."""
        ip(f"link set {self._port} up", namespace=self._switch)

    def cut(self, *, incoming: bool = True, outgoing: bool = True) -> None:
        """Lose what comes in, what goes out, or both, on the wire: nobody at either end notices."""
        if incoming:
            tc(f"qdisc add dev {self._port} root blackhole", namespace=self._switch)
        if outgoing:
            tc("qdisc add dev eth0 root blackhole", namespace=self.namespace)

    def mend(self, *, incoming: bool = True, outgoing: bool = True) -> None:
        """Undo the same `cut`."""
        if incoming:
            tc(f"qdisc del dev {self._port} root", namespace=self._switch)
        if outgoing:
            tc("qdisc del dev eth0 root", namespace=self.namespace)

    def start(
        self, *arguments: str, environment: Mapping[str, str] | None = None, ends: int | None = 0
    ) -> Process:
        """A process on this machine; `ends`: the exit status it must have on SIGTERM."""
        process = Process(
            f"{arguments[0].rpartition('/')[2]} on {self.name}",
            entering(self.namespace, arguments),
            environment=environment,
            ends=ends,
        )
        self._processes.append(process)
        return process

    def output(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """What a short command prints; it must end with 0."""
        done = subprocess.run(
            entering(self.namespace, arguments),
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=STEP,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(arguments)} on {self.name}: {done.stderr}"
        return done.stdout

    def run(self, work: Coroutine[Any, Any, T], seconds: float = STEP) -> T:
        """The result of a coroutine that runs on this machine: the sockets it makes are here."""
        assert self._inside is not None
        return self._inside.run(work, seconds)

    def call(self, work: Callable[[], T], seconds: float = STEP) -> T:
        """The result of something that blocks, done in a thread on this machine."""
        return self.run(asyncio.to_thread(work), seconds)

    def at_close(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run this here before the host is taken away."""
        self._last.append(work)

    def _do(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.run(work())

    def ask_to_end(self) -> None:
        """Tell its processes to end, without waiting for any."""
        for process in self._processes:
            process.ask_to_end()

    def close(self) -> None:
        """End its processes; complain of one that does not end well."""
        with contextlib.ExitStack() as ending:
            if self._inside is not None:
                ending.callback(self._inside.close)
            for process in self._processes:
                ending.callback(process.end)
            for work in self._last:
                ending.callback(self._do, work)


@contextlib.contextmanager
def a_lan(*hosts: str) -> Iterator[Lan]:
    """A LAN of these hosts. Fails where namespaces cannot be had."""
    assert os.geteuid() == 0, "a LAN for a test takes root: run `make test`"
    assert shutil.which("ip"), "a LAN for a test takes iproute2: run `make test`"
    sweep()
    with a_prefix() as prefix, contextlib.ExitStack() as ending:
        lan = Lan(prefix)
        ending.callback(lan.close)
        for name in hosts:
            lan.add(name)
        yield lan
