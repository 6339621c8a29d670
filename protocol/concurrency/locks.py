"""One lock for each name that somebody holds or waits for, and none for all others."""

import asyncio
from collections.abc import Hashable
from weakref import WeakValueDictionary


class Locks:
    """`async with locks["name"]:` - one at a time for the same name. For use on one event loop."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    def __getitem__(self, name: Hashable) -> asyncio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock
