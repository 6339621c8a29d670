"""Avahi, an mDNS peer that nobody here wrote: a daemon on a host of a test's LAN, with a D-Bus of
its own, and what `avahi-browse` sees there.
"""

import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from tests.system.lan import Host

_BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"""
_DAEMON = """\
[server]
host-name=peer
use-ipv4=yes
use-ipv6=yes
allow-interfaces=eth0
enable-dbus=yes
[publish]
publish-hinfo=no
publish-workstation=no
"""


class Seen(Struct, frozen=True):
    """A service as Avahi resolved it."""

    protocol: str  # "IPv4" or "IPv6": what the answer came by
    instance: str
    host: str
    address: str
    port: int
    text: dict[str, str]


class Avahi:
    """An avahi-daemon in the foreground; ends with its host."""

    def __init__(self, host: Host, folder: Path) -> None:
        self._host = host
        bus, daemon, socket = (folder / name for name in ("bus.conf", "avahi.conf", "bus.socket"))
        bus.write_text(_BUS.format(socket=socket))
        daemon.write_text(_DAEMON)
        self._environment = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={socket}"}
        bus_daemon = host.start(
            "dbus-daemon", f"--config-file={bus}", "--nofork", "--nopidfile", "--print-address=1"
        )
        bus_daemon.line(r"unix:path=.*")
        # Its folder under /run is fixed; one that nobody else sees keeps it off the machine's own.
        flags = ("--no-drop-root", "--no-chroot", "--no-rlimits", f"--file={daemon}")
        command = shlex.join(["avahi-daemon", *flags])
        self._daemon = host.start(
            "sh",
            "-c",
            f"mount -t tmpfs none /run && exec {command}",
            environment=self._environment,
            ends=None,
        )
        self._daemon.line(r"Server startup complete\..*")

    def browse(self) -> list[Seen]:
        """What `avahi-browse` lists of our service type at this moment."""
        text = self._host.output(
            "avahi-browse", "-rpt", "_imagepool._tcp", environment=self._environment
        )
        return [_seen(line) for line in text.splitlines() if line.startswith("=;")]

    def browse_until(
        self, sight: Callable[[list[Seen]], bool], seconds: float = 15.0
    ) -> list[Seen]:
        """What it lists, as soon as that looks so; it takes as long each time as it wants to."""
        deadline = time.monotonic() + seconds
        while not sight(seen := self.browse()):
            assert time.monotonic() < deadline, f"avahi-browse sees {seen}"
        return seen


def _seen(line: str) -> Seen:
    """A line of `avahi-browse -rp`: =;eth0;IPv4;INSTANCE;TYPE;DOMAIN;HOST;ADDRESS;PORT;"K=V" ..."""
    _, _, protocol, instance, _, _, host, address, port, text = line.split(";", 9)
    entries = (entry.partition("=") for entry in shlex.split(text))
    return Seen(
        protocol=protocol,
        instance=_plain(instance),
        host=_plain(host),
        address=address,
        port=int(port),
        text={key: value for key, _, value in entries},
    )


def _plain(text: str) -> str:
    r"""`\032` and the like as the characters they stand for."""
    return re.sub(r"\\(\d{3})", lambda match: chr(int(match[1])), text)
