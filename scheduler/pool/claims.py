"""Addresses where somebody says that a member is which answers elsewhere. Each is asked once for
the proof, apart from the member: one that gives it is another address of that member, or a wire to
it; one that does not stands on the roster, and the member is as it was.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from protocol.errors import PoolError, Unproven
from protocol.ports.service import Caller
from scheduler.core.roster import Entry
from scheduler.pool.target import NodeClient

log = logging.getLogger(__name__)

_MOST = 64
"""Addresses that are asked, or shown: whoever makes up more is on the roster often enough."""
_AGAIN = 10.0
"""Seconds before an address is asked again; a true one is heard of as often."""


class Claims:
    """Of one pool. For use on the event loop."""

    def __init__(
        self,
        caller: Caller,
        connect: Callable[[str, str], NodeClient],
        changed: Callable[[], None],
    ) -> None:
        """`connect`: a client for a URL and the id of the program that must answer there; `changed`
        is called when the roster is another one.
        """
        self._caller = caller
        self._connect = connect
        self._changed = changed
        self._asked: dict[str, float] = {}  # URL -> when, monotonic
        self._asking: set[asyncio.Task[None]] = set()
        self._entries: dict[str, Entry] = {}

    def entries(self) -> tuple[Entry, ...]:
        """What did not prove to be what it says."""
        return tuple(self._entries.values())

    def heard(self, member: Entry, urls: tuple[str, ...], how: str) -> None:
        """Somebody says that the member is at these URLs too, where it was not known to be."""
        now = time.monotonic()
        here = urlsplit(member.url).hostname
        for url in urls:
            parts = urlsplit(url)
            # Its own machine may say where clients are served before it says where members are.
            if url == member.url or (parts.hostname == here and parts.scheme != "https"):
                continue
            if now - self._asked.get(url, -_AGAIN) >= _AGAIN and self._has_room(now):
                self._asked[url] = now
                task = asyncio.create_task(self._ask(member, url, how))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)

    def sweep(self, after: float) -> None:
        """Forget what nobody said for so many seconds."""
        now = time.monotonic()
        for url in [url for url, at in self._asked.items() if now - at > max(after, _AGAIN)]:
            del self._asked[url]
            if self._entries.pop(url, None) is not None:
                self._changed()

    async def settled(self) -> None:
        """Wait until all have been asked."""
        while self._asking:
            await asyncio.wait(self._asking)

    async def close(self) -> None:
        """Ask no more."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    def _has_room(self, now: float) -> bool:
        if len(self._asked) >= _MOST:
            for url in [url for url, at in self._asked.items() if now - at >= _AGAIN]:
                if url not in self._entries:
                    del self._asked[url]
        return len(self._asked) < _MOST

    async def _ask(self, member: Entry, url: str, how: str) -> None:
        words = ""
        try:
            client = self._connect(url, member.program)
            try:
                said = (await client.status(self._caller)).id
            finally:
                await client.close()
            if said != member.program:
                words = f"it proved to be {member.program[:16]}, and says it is {said[:16]}"
        except Unproven as error:
            words = error.detail
        except PoolError:
            return  # nobody is there: nothing is known of who said so
        if words:
            self._show(member, url, how, words)
        elif self._entries.pop(url, None) is not None:
            self._changed()

    def _show(self, member: Entry, url: str, how: str, words: str) -> None:
        name = member.report.name if member.report is not None else member.program[:16]
        words = f"it says that it is {name}: {words}"
        if url not in self._entries:
            log.warning("%s: %s", url, words)
        self._entries[url] = Entry(
            key=url,
            url=url,
            found=(how,),
            since=time.monotonic(),
            error=words,
            failures=1,
            unproven=True,
        )
        self._changed()
