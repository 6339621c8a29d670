"""Who fails too often to prove who they are is not heard for a while, by address."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

from protocol.errors import TooOften


class Failures:
    """How often somebody failed to prove who they are, by address; as many are remembered as
    `addresses` says.
    """

    def __init__(
        self,
        limit: int,
        window: float,
        clock: Callable[[], float] = time.monotonic,
        addresses: int = 10_000,
    ) -> None:
        """`limit`: failures in `window` seconds, after which nobody from there is heard until some
        of them are older.
        """
        self._limit = limit
        self._window = window
        self._clock = clock
        self._addresses = addresses
        self._counts: OrderedDict[str, tuple[float, float]] = OrderedDict()  # (count, as of)

    def count(self, address: str) -> None:
        """One more; what may yet turn out to be none is counted before it is known, and forgiven.
        Raises TooOften, and counts nothing, where there were too many.
        """
        key = network(address)
        count = self._now(key)
        if count > self._limit - 1:
            pause = (count - self._limit + 1) * self._window / self._limit
            raise TooOften("too many failures from your address", retry_after=int(pause) + 1)
        self._counts[key] = (count + 1, self._clock())
        self._counts.move_to_end(key)
        while len(self._counts) > self._addresses:
            self._counts.popitem(last=False)

    def forgive(self, address: str) -> None:
        """It was none."""
        key = network(address)
        if key in self._counts:
            self._counts[key] = (max(0.0, self._now(key) - 1), self._clock())

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._counts)

    def _now(self, key: str) -> float:
        """What is left of the failures; they are forgotten steadily."""
        count, at = self._counts.get(key, (0.0, 0.0))
        return max(0.0, count - (self._clock() - at) * self._limit / self._window)


def is_loopback(host: str) -> bool:
    """Whether this is an address of this machine that no other one reaches."""
    ip = _address(host)
    return ip is not None and ip.is_loopback


def is_address(text: str) -> bool:
    """Whether this is an address at all."""
    return _address(text) is not None


def network(address: str) -> str:
    """What counts as one address: of IPv6, where anybody has many, a whole network."""
    ip = _address(address)
    if ip is None:
        return address[:64]
    return str(ipaddress.ip_network((ip, 64), strict=False)) if ip.version == 6 else str(ip)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip
