"""The thread that moves bytes: one for all that is moved, with an epoll of its own, alive while
there is something to move. What it moves, and how, is in `protocol/transfer/splice.py`.
"""

import os
import select
import threading
from collections import deque
from typing import Protocol

from protocol.errors import Unavailable

_TURN = 8  # steps that a transfer does before it is another's turn


class Transfer(Protocol):
    """One body on its way."""

    def step(self) -> tuple[int, int] | None:
        """Move some bytes. What to wait for, as descriptor and mask, or None for more at once.

        Raises Unavailable where the source breaks off, OSError where the sink does.
        """

    @property
    def done(self) -> bool:
        """Whether all bytes are with the sink."""

    def end(self, error: Unavailable | None) -> None:
        """Let go of both ends, then say so."""


class _Turns:
    """Whose turn it is, and who waits for what."""

    def __init__(self, epoll: select.epoll) -> None:
        self.alive: set[Transfer] = set()
        self.ready: deque[Transfer] = deque()
        self._epoll = epoll
        self._waiting: dict[int, Transfer] = {}  # descriptor -> who waits for it
        self._awaited: dict[Transfer, int] = {}

    def begin(self, transfer: Transfer) -> None:
        """It joins."""
        self.alive.add(transfer)
        self.ready.append(transfer)

    def wake(self, descriptor: int) -> None:
        """What somebody waited for has happened."""
        transfer = self._waiting.pop(descriptor)
        del self._awaited[transfer]
        self._epoll.unregister(descriptor)
        self.ready.append(transfer)

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
                descriptor, mask = wish
                self._epoll.register(descriptor, mask)
                self._waiting[descriptor] = transfer
                self._awaited[transfer] = descriptor
                return
        self.ready.append(transfer)


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
                for descriptor, _ in epoll.poll(0 if turns.ready else -1):
                    if descriptor == bell:
                        os.eventfd_read(bell)
                    else:
                        turns.wake(descriptor)
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
