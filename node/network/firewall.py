"""Rules for what comes in by one bridge, kept in the kernel by iptables.

They are in a chain of our own, in the table `mangle`: before a packet is led anywhere
(PREROUTING), and again where it is passed on (FORWARD), as the engine or others may have led it
elsewhere between the two. Nobody else writes there, whereas the engine makes its own chains of
the table `filter` anew whenever it starts, before all that others put there; DOCKER-USER it
makes only where it has a firewall at all. So there is no moment in which our rules do not hold.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from node.engines.errors import EngineError

_TABLE = "mangle"
_HOOKS = ("PREROUTING", "FORWARD")
_LOCK = "5"  # seconds to wait for others who change rules
_PATIENCE = 20.0  # seconds that a call may take
_IPV6 = Path("/proc/net/if_inet6")  # there where the kernel has IPv6
_PLACES = "/usr/local/sbin:/usr/sbin:/sbin"  # not on every user's PATH


class Unguarded(EngineError):
    """The rules are not in the kernel, and could not be put there; the text says why."""


class Firewall:
    """Rules of IPv4 for one bridge; of IPv6 nothing passes. Its calls block, one at a time."""

    def __init__(self, interface: str, chain: str) -> None:
        """`chain`: 28 characters at most."""
        self._chain = chain
        self._hooks = tuple(f"-A {hook} -i {interface} -j {chain}" for hook in _HOOKS)
        self._families: tuple[_Family, ...] = (
            _Family("iptables", self),
            _Family("ip6tables", self),
        )
        if not _IPV6.exists():
            self._families = self._families[:1]

    def hold(self, rules: Sequence[str]) -> None:
        """These rules are in force when this returns; nothing is done where they were. Raises
        Unguarded.
        """
        for family, wanted in zip(self._families, (tuple(rules), ("-j DROP",)), strict=False):
            family.hold(wanted)

    def look(self) -> None:
        """See whether rules can be had here, and change none. Raises Unguarded."""
        for family in self._families:
            family.look()

    def drop(self) -> None:
        """Take all of it away. Raises Unguarded."""
        for family in self._families:
            family.drop()

    @property
    def chain(self) -> str:
        """Its name."""
        return self._chain

    @property
    def hooks(self) -> tuple[str, ...]:
        """What leads packets to the chain."""
        return self._hooks


class _Family:
    """IPv4 or IPv6, by the name of its program."""

    def __init__(self, program: str, firewall: Firewall) -> None:
        self._program = program
        self._firewall = firewall
        self._written: tuple[str, ...] | None = None  # rules as we wrote them
        self._seen: tuple[str, ...] = ()  # as the kernel told them then

    def hold(self, rules: tuple[str, ...]) -> None:
        seen = self._own()
        if rules == self._written and seen == self._seen:
            return
        hooks = self._firewall.hooks
        chain = self._firewall.chain
        there = [line.replace("-A", "-D", 1) for line in seen if line in hooks]  # or twice
        anew = [hook.replace("-A", "-I", 1) for hook in hooks]
        contents = [f"-A {chain} {rule}" for rule in rules]
        self._restore([f":{chain} - [0:0]", *contents, *there, *anew])
        seen = self._own()
        if not set(seen).issuperset(hooks) or len(seen) != 1 + len(hooks) + len(rules):
            raise Unguarded(f"{self._program} took the rules for builds and does not have them")
        self._written, self._seen = rules, seen

    def look(self) -> None:
        self._own()

    def drop(self) -> None:
        chain, seen = self._firewall.chain, self._own()
        hooks = [line.replace("-A", "-D", 1) for line in seen if line in self._firewall.hooks]
        if seen:
            self._restore([f":{chain} - [0:0]", *hooks, f"-X {chain}"])
        self._written = None

    def _own(self) -> tuple[str, ...]:
        """The lines of the kernel's rules that are about our chain."""
        said = self._run(self._program, "-w", _LOCK, "-t", _TABLE, "-S")
        chain = self._firewall.chain
        return tuple(line for line in said.splitlines() if chain in line.split())

    def _restore(self, lines: Sequence[str]) -> None:
        """All of it or nothing, at once."""
        text = "\n".join((f"*{_TABLE}", *lines, "COMMIT", ""))
        self._run(f"{self._program}-restore", "--noflush", "-w", _LOCK, text=text)

    def _run(self, program: str, *arguments: str, text: str = "") -> str:
        path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_PLACES}")
        if path is None:
            raise Unguarded(f"there is no {program}: install iptables")
        try:
            done = subprocess.run(
                [path, *arguments],
                input=text,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unguarded(f"{program} did not run: {error}") from error
        if done.returncode != 0:
            words = " ".join(done.stderr.split())[:200]
            raise Unguarded(f"{program}: {words or f'exit status {done.returncode}'}")
        return done.stdout
