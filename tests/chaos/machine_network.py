"""A network that is a bag of messages, and the client by which a scheduler speaks over it.

A request lies in the bag until it is delivered, then its answer does. Each can be delivered in any
order, or be lost; a request also twice, and late: after its sender gave up, even to the next life
of the node.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from protocol.errors import PoolError, Unavailable, Unreachable
from protocol.model.messages import Report
from protocol.ports.service import Caller
from tests.chaos.machine_loop import LIFE, Life

_LATE = 12  # requests whose senders gave up, or had their answer, that may still arrive


class Call:
    """One request and its answer."""

    def __init__(
        self,
        life: Life,
        node: str,
        verb: str,
        arguments: tuple[Any, ...],
        options: dict[str, Any],
    ) -> None:
        self.life = life  # the sender's
        self.node = node
        self.verb = verb
        self.arguments = arguments
        self.options = options
        self.reply: asyncio.Future[Any] = life.loop.create_future()
        self.answer: Callable[[], None] | None = None  # hands the answer over; None: none yet
        self.taken = False  # the node has it

    @property
    def on_its_way(self) -> bool:
        """The request or the answer is in the bag."""
        return not self.taken or self.answer is not None

    @property
    def late(self) -> bool:
        """Nobody waits for the answer."""
        return self.reply.done()

    def __repr__(self) -> str:
        return f"{self.life.program}->{self.node} {self.verb}{'=' if self.answer else ''}"


class Network:
    """All messages that are under way."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.sent: list[Call] = []  # the latest, but polls
        self.services: dict[str, tuple[Life, Any]] = {}  # node -> its life and build service
        self.cut: set[tuple[str, str]] = set()  # (scheduler, node) between which nothing gets over
        self.on_send: Callable[[Call], None] = lambda call: None
        self.reports: list[tuple[Life, Report]] = []  # (whose scheduler asked, report)

    def deliverable(self, *, late: bool = True) -> list[Call]:
        """What can arrive now; with what is late or repeated, or without."""
        ready = [call for call in self.calls if call.on_its_way and not self._is_cut(call)]
        return [call for call in ready if late or not call.late]

    def _is_cut(self, call: Call) -> bool:
        return (call.life.program, call.node) in self.cut

    async def ask(
        self,
        node: str,
        verb: str,
        arguments: tuple[Any, ...],
        options: dict[str, Any],
        patience: float,
    ) -> Any:
        """The node's answer. Raises what it raised, Unreachable, Unavailable."""
        call = Call(LIFE.get(), node, verb, arguments, options)
        if call.life.dead:
            raise asyncio.CancelledError
        self.on_send(call)
        self.sent = [*self.sent, call][-_LATE:] if verb != "status" else self.sent
        if node not in self.services:
            await asyncio.sleep(0)
            raise Unreachable(f"{node}: connection refused")
        self.calls.append(call)
        try:
            async with asyncio.timeout(patience):
                return await call.reply
        except TimeoutError:
            raise Unavailable(f"{node}: no answer in time") from None
        finally:
            self._given_up(call)

    def _given_up(self, call: Call) -> None:
        """Nobody waits for the answer any more; the request may still arrive."""
        call.answer = None
        if call.taken or call.verb == "status":
            self._remove(call)
        for one in [one for one in self.calls if one.late and not one.taken][:-_LATE]:
            self._remove(one)

    def _remove(self, call: Call) -> None:
        if call in self.calls:
            self.calls.remove(call)

    def deliver(self, call: Call) -> None:
        """The request arrives at the node, or the answer at the scheduler."""
        if call.answer is not None:
            self._remove(call)
            call.answer()
        elif call.node in self.services:
            self._hand_over(call)
            call.taken = True
            if call.late:
                self._remove(call)
        else:
            self.lose(call)

    def repeat(self, which: int) -> None:
        """A request that was sent before, counted from the latest, arrives once more; nobody hears
        the answer.
        """
        if not self.sent:
            return
        call = self.sent[-1 - which % len(self.sent)]
        if call.node in self.services and not self._is_cut(call):
            copy = Call(call.life, call.node, call.verb, call.arguments, call.options)
            copy.reply.cancel()
            self._hand_over(copy)

    def lose(self, call: Call, error: PoolError | None = None) -> None:
        """The request or the answer is gone; the sender is told so at once, or of `error`."""
        self._remove(call)
        if not call.late:
            call.reply.set_exception(error or Unavailable(f"{call.node}: connection reset"))
            call.reply.exception()

    def give_up(self, call: Call) -> None:
        """The sender does not wait any more; the request may still arrive."""
        if not call.late:
            call.reply.set_exception(Unavailable(f"{call.node}: no answer in time"))
            call.reply.exception()

    def forget(self, program: str) -> None:
        """A program died: its connections with it, but for what is late."""
        for call in tuple(self.calls):
            if program in (call.node, call.life.program) and (call.taken or not call.late):
                self.lose(call)
        self.services.pop(program, None)

    def _hand_over(self, call: Call) -> None:
        life, service = self.services[call.node]
        life.begin(self._serve(call, service))

    async def _serve(self, call: Call, service: Any) -> None:
        answer: Callable[[], None]
        try:
            value = await getattr(service, call.verb)(*call.arguments, **call.options)
        except PoolError as error:
            answer = partial(call.reply.set_exception, type(error)(error.detail))
        else:
            if call.verb == "status":
                self.reports.append((call.life, value))
            answer = partial(call.reply.set_result, value)
        if LIFE.get().dead or call.late:
            self._remove(call)
        else:
            call.answer = answer


class Wire:
    """`HttpService` over the network of the test; its URL names the node."""

    network: Network

    def __init__(self, url: str, *, caller: Caller, patience: float, **_: object) -> None:
        self._node = url
        self._patience = patience

    async def close(self) -> None:
        """Nothing is open."""

    def __getattr__(self, verb: str) -> Callable[..., Awaitable[Any]]:
        """Any verb of BuildService."""
        return partial(self._ask, verb)

    async def _ask(self, verb: str, *arguments: Any, **options: Any) -> Any:
        patience = options.get("wait", 0.0) + self._patience
        return await self.network.ask(self._node, verb, arguments, options, patience)
