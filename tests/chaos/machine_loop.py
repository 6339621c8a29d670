"""An event loop without sockets, threads or a clock of its own, and lives that can end at any step.

What a test does not let happen does not happen: time stands still between two calls of `run_until`,
and what a program writes or asks of a thread waits in its life's `work` while the life is `slow`.
"""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, cast

LIFE: ContextVar["Life"] = ContextVar("life")
"""Whose code runs now."""

_BURIALS = 10  # times that what a dead program's `finally` clauses begin is ended too


class OrderedFuture(asyncio.Future[Any]):
    """One of a set, in whose order programs wake who waits: the same in each run."""

    def __init__(self, number: int, **options: Any) -> None:
        self.number = number
        super().__init__(**options)

    def __hash__(self) -> int:
        return self.number


class OrderedTask(asyncio.Task[Any]):
    """As OrderedFuture. asyncio asks for its hash while it is made."""

    def __init__(self, number: int, work: Any, **options: Any) -> None:
        self.number = number
        super().__init__(work, **options)

    def __hash__(self) -> int:
        return self.number


class StillLoop:
    """Runs what is ready, in order, until nothing is. It has of a loop what programs use here."""

    def __init__(self) -> None:
        self.now = 0.0
        self.errors: list[str] = []  # nobody has looked at these exceptions
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self.numbers = itertools.count()

    def settle(self) -> None:
        """Run until everybody waits."""
        asyncio._set_running_loop(cast(Any, self))
        try:
            while self._ready:
                handle = self._ready.popleft()
                if not handle._cancelled:
                    handle._run()
        finally:
            asyncio._set_running_loop(None)

    def next_timer(self) -> float | None:
        """When something is due next."""
        while self._timers and self._timers[0][2]._cancelled:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def advance(self, when: float) -> None:
        """It is then now: run what is due by then, and what follows."""
        self.now = max(self.now, when)
        while (due := self.next_timer()) is not None and due <= self.now:
            self._ready.append(heapq.heappop(self._timers)[2])
        self.settle()

    # What asyncio asks of a loop

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return OrderedFuture(next(self.numbers), loop=self)

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> asyncio.Task[Any]:
        task = OrderedTask(next(self.numbers), coro, loop=self, name=name, context=context)
        life = LIFE.get() if context is None else context[LIFE]
        life.tasks[task] = None
        task.add_done_callback(life.bury)
        return task

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, cast(Any, self), context)
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, cast(Any, self), context)
        heapq.heappush(self._timers, (when, next(self.numbers), handle))
        return handle

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[[], Any], *args: Any) -> Any:
        return LIFE.get().thread(partial(func, *args))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Called by handles; it is dropped when it is due."""


class Work:
    """Something that a program waits for: a write, or what a thread does."""

    def __init__(self, effect: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self._effect = effect
        self.future = future

    def do(self) -> None:
        """It happens now; an answer that is a future is waited for."""
        try:
            answer = self._effect()
        except Exception as error:
            if not self.future.done():
                self.future.set_exception(error)
            return
        if isinstance(answer, asyncio.Future):
            answer.add_done_callback(self._hand_on)
        elif not self.future.done():
            self.future.set_result(answer)

    def _hand_on(self, answer: asyncio.Future[Any]) -> None:
        if self.future.done() or answer.cancelled():
            return
        if error := answer.exception():
            self.future.set_exception(error)
        else:
            self.future.set_result(answer.result())


class Life:
    """A program from its start to its death."""

    def __init__(self, loop: StillLoop, program: str) -> None:
        self.loop = loop
        self.program = program
        self.boot = f"{program}.{next(loop.numbers)}"
        self.dead = False
        self.slow = False  # writes and threads wait until they are let
        self.spoilt: Exception | None = None  # what the next write ends with
        self.tasks: dict[asyncio.Task[Any], None] = {}  # in the order that they began
        self.writes: deque[Work] = deque()  # one after another
        self.threads: list[Work] = []  # in any order
        self._context = copy_context()
        self._context.run(LIFE.set, self)

    def begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Let it run as part of this program."""
        return self.loop.create_task(work, context=self._context.copy())

    def bury(self, task: asyncio.Task[Any]) -> None:
        """It is over."""
        self.tasks.pop(task, None)

    def write(self, effect: Callable[[], Any]) -> asyncio.Future[Any]:
        """It is on disk when the answer is done."""
        spoilt, self.spoilt = self.spoilt, None
        return self._do(_raising(spoilt) if spoilt else effect, self.writes)

    def thread(self, effect: Callable[[], Any]) -> asyncio.Future[Any]:
        """A thread does it."""
        return self._do(effect, self.threads)

    def work_on(self, which: int) -> None:
        """One thing that waits is done: the oldest write, or what any thread does."""
        choice = [*([self.writes[0]] if self.writes else []), *self.threads]
        if not choice:
            return
        work = choice[which % len(choice)]
        if self.writes and work is self.writes[0]:
            self.writes.popleft()
        else:
            self.threads.remove(work)
        work.do()

    def catch_up(self) -> None:
        """Everything that waits is done, and nothing waits from now on."""
        self.slow = False
        while self.writes or self.threads:
            self.work_on(0)

    def kill(self) -> None:
        """It is gone between two steps; what it still does in being removed has no effect."""
        self.dead = True
        self.writes.clear()
        self.threads.clear()
        for _ in range(_BURIALS):
            for task in tuple(self.tasks):
                task.cancel()
            self.loop.settle()
            if not self.tasks:
                return
        raise AssertionError(f"{self.program} does not die: {self.tasks}")

    def _do(self, effect: Callable[[], Any], queue: Any) -> asyncio.Future[Any]:
        future = self.loop.create_future()
        if self.dead:
            future.cancel()
        elif self.slow:
            queue.append(Work(effect, future))
        else:
            Work(effect, future).do()
        return future


def _raising(error: Exception) -> Callable[[], Any]:
    def effect() -> None:
        raise error

    return effect


class Clock:
    """Takes the place of the module `time` in programs."""

    CLOCK_BOOTTIME = 0

    def __init__(self, loop: StillLoop) -> None:
        self._loop = loop

    def time(self) -> float:
        """Seconds since the epoch."""
        return 1_000_000.0 + self._loop.now

    def monotonic(self) -> float:
        """Seconds."""
        return 1_000.0 + self._loop.now

    def clock_gettime(self, clock: int) -> float:
        """Seconds since the machine started."""
        return self.monotonic()


class Draws:
    """Takes the place of the module `secrets`: numbers that count."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def token_bytes(self, size: int) -> bytes:
        """The next number."""
        return next(self._numbers).to_bytes(size, "big")

    def token_hex(self, size: int) -> str:
        """The next number."""
        return self.token_bytes(size).hex()


@contextmanager
def replaced(values: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """(module, name, value): in place of what the module has, for a while."""
    before = [(module, name, getattr(module, name)) for module, name, _ in values]
    for module, name, value in values:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in reversed(before):
            setattr(module, name, value)
