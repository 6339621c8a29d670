"""How nodes come to the scheduler's attention: mDNS, settings, registration. Finding proves
nothing; polling does.
"""

from urllib.parse import urlsplit

from protocol.errors import Invalid
from protocol.model.checks import check_url
from protocol.model.messages import API_VERSION, Registration
from protocol.program.beacon import Beacon, urls
from scheduler.pool.poller import Pool


class Discovery:
    """Puts what was found into the pool."""

    def __init__(self, pool: Pool, me: str, name: str, pool_id: str = "") -> None:
        """`pool_id`: of the pool whose members prove that they are; empty: there is none."""
        self._pool_id = pool_id
        self._pool = pool
        self._me = me
        self._name = name  # of the pool that we serve

    def named(self, urls: tuple[str, ...]) -> None:
        """Nodes that settings name."""
        for url in urls:
            self._pool.find(node_url(url, "nodes"), (node_url(url, "nodes"),), "settings")

    def named_plain(self, urls: tuple[str, ...], nodes: tuple[str, ...]) -> None:
        """Servers that settings name and that speak the documented API only; `nodes`: what they
        name as nodes of ours. Raises Invalid for what is none, or both.
        """
        ours = {node_url(url, "nodes") for url in nodes}
        for url in dict.fromkeys(node_url(url, "plain_nodes") for url in urls):
            if url in ours:
                raise Invalid(f"{url} is in nodes too", field="plain_nodes", expected="one of both")
            self._pool.find_plain(url)

    def register(self, registration: Registration, member: str = "") -> None:
        """A node says itself where it is; `member`: its id, where it has proven that. Raises
        Invalid, Denied where no node is called.
        """
        url = node_url(registration.url, "url")
        self._pool.guard.check(url, "url")
        self._pool.find(member or url, (url,), "registered")

    def found(self, beacon: Beacon) -> None:
        """mDNS heard of a program."""
        ours = beacon.pool == self._name and beacon.id != self._me
        takes_builds = beacon.role != "scheduler" and beacon.api == API_VERSION
        member = bool(beacon.pool_port and self._pool_id and beacon.pool_id == self._pool_id)
        if ours and takes_builds and (places := urls(beacon, member=member)):
            self._pool.find(beacon.id, places, "mdns")

    def gone(self, identity: str) -> None:
        """mDNS heard a goodbye."""
        self._pool.say_goodbye(identity)


def node_url(url: str, field: str) -> str:
    """A node's URL in one spelling: scheme, host and port. Raises Invalid."""
    check_url(url, field)
    parts = urlsplit(url)
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        raise Invalid(f"{field} is {url[:80]!r}", field=field, expected="http://HOST:PORT")
    return f"{parts.scheme}://{parts.netloc}".lower()
