"""Whether and when to try again what failed on the way: as long as the last progress is not too
long ago.
"""

import asyncio
import time

from protocol.errors import Busy, Unavailable, Unreachable

_FIRST = 0.1  # seconds before the second try; each further pause is twice as long
_LONGEST = 2.0


class Trying:
    """One errand's tries. `seconds`: how long it may go without progress.

    `known`: whether the pool was heard of before. Where it never was, a refused connection, or an
    answer that no pool gives, is no reason to try again: its address is more likely wrong.
    """

    def __init__(self, seconds: float, *, known: bool) -> None:
        self._seconds = seconds
        self._known = known
        self._pause = _FIRST
        self._since: float | None = None

    def progressed(self) -> None:
        """Something came: patience begins anew."""
        self._known, self._pause, self._since = True, _FIRST, None

    def hurry(self, seconds: float) -> None:
        """From now on, go no longer than this without progress."""
        self._seconds = min(self._seconds, seconds)

    async def after(self, error: Unavailable | Busy) -> None:
        """Pause before the next try, or raise the error."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        pause = float(error.retry_after) if isinstance(error, Busy) else self._pause
        wrong = isinstance(error, Unreachable) or (isinstance(error, Unavailable) and error.foreign)
        if (wrong and not self._known) or now + pause - self._since > self._seconds:
            raise error
        await asyncio.sleep(pause)
        self._pause = min(2 * self._pause, _LONGEST)
