"""Whether who asked may still have the answer while it goes on: a log that is followed and a stream
of events last for hours, and a token may be revoked meanwhile.
"""

from collections.abc import Callable

from tornado.ioloop import IOLoop

AGAIN = 10.0
"""Seconds between looks at who asks, while an answer goes on."""


class Standing:
    """Looks again and again while a request is answered. For use on the event loop."""

    def __init__(self, may: Callable[[], bool], cut: Callable[[], None]) -> None:
        """`may`: whether the caller would be let in now; `cut`: ends the answer where not."""
        self._may = may
        self._cut = cut
        self._loop = IOLoop.current()
        self._next = self._loop.call_later(AGAIN, self._look)

    def end(self) -> None:
        """The answer is whole, or its reader is gone."""
        self._loop.remove_timeout(self._next)

    def _look(self) -> None:
        if self._may():
            self._next = self._loop.call_later(AGAIN, self._look)
        else:
            self._cut()
