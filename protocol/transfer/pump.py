"""The thread that moves bytes: one for all that is moved, with an epoll of its own, alive while
there is something to move. What it moves, and how, is in `protocol/transfer/splice.py`.
"""

import os
import select
import threading
import time
from collections import deque
from typing import NamedTuple, Protocol

from protocol.errors import Unavailable

_TURN = 8  # steps that a transfer does before it is another's turn
_BRIEFLY = 0.05  # seconds that a brief wait takes at most


class Wait(NamedTuple):
    """What has to happen before a transfer can go on."""

    descriptor: int
    mask: int  # as epoll has it
    brief: bool = False  # it goes on soon, whether it has happened or not


class Transfer(Protocol):
    """One body on its way."""

    def step(self) -> Wait | None:
        """Move some bytes. What to wait for, or None for more at once.

        Raises Unavailable where the source breaks off, OSError where the sink does.
        """

    @property
    def done(self) -> bool:
        """Whether all bytes are with the sink."""

    def end(self, error: Unavailable | None) -> None:
        """Let go of both ends, then say so."""


class _Waiting(NamedTuple):
    transfer: Transfer
    descriptor: int
    until: float  # on the clock of time.monotonic, where it is brief


class _Turns:
    """Whose turn it is, and who waits for what."""

    def __init__(self, epoll: select.epoll) -> None:
        self.alive: set[Transfer] = set()
        self.ready: deque[Transfer] = deque()
        self._epoll = epoll
        self._waiting: dict[int, _Waiting] = {}  # by descriptor
        self._awaited: dict[Transfer, int] = {}
        self._brief: deque[_Waiting] = deque()  # the first to be over first; some are over

    def begin(self, transfer: Transfer) -> None:
        """It joins."""
        self.alive.add(transfer)
        self.ready.append(transfer)

    def patience(self) -> float:
        """Seconds until somebody's turn comes by itself; -1: never."""
        if self.ready:
            return 0
        while self._brief and not self._goes_on(self._brief[0]):
            self._brief.popleft()
        return max(0.0, self._brief[0].until - time.monotonic()) if self._brief else -1

    def wake(self, descriptor: int) -> None:
        """What somebody waited for has happened."""
        transfer = self._waiting.pop(descriptor).transfer
        del self._awaited[transfer]
        self._epoll.unregister(descriptor)
        self.ready.append(transfer)

    def wake_late(self) -> None:
        """Those who have waited long enough."""
        now = time.monotonic()
        while self._brief and self._brief[0].until <= now:
            waiting = self._brief.popleft()
            if self._goes_on(waiting):
                self.wake(waiting.descriptor)

    def all(self) -> None:
        """A turn for everybody who is ready."""
        for _ in range(len(self.ready)):
            transfer = self.ready.popleft()
            try:
                if transfer in self.alive:
                    self._turn(transfer)
            except Unavailable as error:
                self.end(transfer, error)
            except OSError as error:
                self.end(transfer, Unavailable(f"the client is gone: {error}"))

    def end(self, transfer: Transfer, error: Unavailable | None) -> None:
        """It leaves; nothing happens where it has left before."""
        if transfer in self.alive:
            self.alive.remove(transfer)
            if (descriptor := self._awaited.pop(transfer, None)) is not None:
                del self._waiting[descriptor]
                self._epoll.unregister(descriptor)
            transfer.end(error)

    def _turn(self, transfer: Transfer) -> None:
        for _ in range(_TURN):
            if transfer.done:
                self.end(transfer, None)
                return
            if wish := transfer.step():
                self._await(transfer, wish)
                return
        self.ready.append(transfer)

    def _await(self, transfer: Transfer, wish: Wait) -> None:
        self._epoll.register(wish.descriptor, wish.mask)
        waiting = _Waiting(transfer, wish.descriptor, time.monotonic() + _BRIEFLY)
        self._waiting[wish.descriptor] = waiting
        self._awaited[transfer] = wish.descriptor
        if wish.brief:
            self._brief.append(waiting)

    def _goes_on(self, waiting: _Waiting) -> bool:
        return self._waiting.get(waiting.descriptor) is waiting


class Pump:
    """The thread, and how it is told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: deque[tuple[Transfer, bool]] = deque()  # to begin, or else to stop
        self._bell = -1  # an eventfd while the thread lives

    def begin(self, transfer: Transfer) -> None:
        """Move its bytes from now on."""
        with self._lock:
            if self._bell < 0:
                bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                threading.Thread(target=self._run, args=(bell,), name="pump", daemon=True).start()
                self._bell = bell
            self._tell(transfer, begin=True)

    def stop(self, transfer: Transfer) -> None:
        """Do no more for it; one that has ended stays as it is."""
        with self._lock:
            if self._bell >= 0:
                self._tell(transfer, begin=False)

    def _tell(self, transfer: Transfer, *, begin: bool) -> None:
        self._orders.append((transfer, begin))
        os.eventfd_write(self._bell, 1)

    def _run(self, bell: int) -> None:
        with select.epoll() as epoll:
            epoll.register(bell, select.EPOLLIN)
            turns = _Turns(epoll)
            while self._obey(turns):
                for descriptor, _ in epoll.poll(turns.patience()):
                    if descriptor == bell:
                        os.eventfd_read(bell)
                    else:
                        turns.wake(descriptor)
                turns.wake_late()
                turns.all()

    def _obey(self, turns: _Turns) -> bool:
        """Take new orders; False where nothing is left to do, and the thread ends."""
        with self._lock:
            while self._orders:
                transfer, begin = self._orders.popleft()
                if begin:
                    turns.begin(transfer)
                else:
                    turns.end(transfer, Unavailable("it was stopped"))
            if not turns.alive:
                os.close(self._bell)
                self._bell = -1
            return bool(turns.alive)
