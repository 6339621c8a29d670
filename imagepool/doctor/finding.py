"""What is looked at, and what is said of it."""

import asyncio
import threading
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from msgspec import Struct

from imagepool.cli.words import printable
from protocol.errors import Invalid
from protocol.program.admitting import pool_address
from protocol.program.identity import KEY
from protocol.program.settings import host_and_port
from protocol.trust.membership import Memberships

if TYPE_CHECKING:
    from imagepool.doctor.lan import Lan

T = TypeVar("T")

Program = Literal["node", "scheduler"]
_LINE = 500  # characters


class Status(Enum):
    """Whether something stands in the way."""

    OK = "ok"
    WARN = "warn"  # the program works; somebody should know this all the same
    FAIL = "fail"


class Finding(Struct, frozen=True):
    """What one look found."""

    check: str
    status: Status
    found: str  # a line, without any secret
    remedy: str = ""  # the command or setting that mends it; a line


def ok(check: str, found: str) -> Finding:
    """It is as it should be."""
    return Finding(_line(check), Status.OK, _line(found))


def warn(check: str, found: str, remedy: str) -> Finding:
    """It does not stand in the way."""
    return Finding(_line(check), Status.WARN, _line(found), _line(remedy))


def fail(check: str, found: str, remedy: str) -> Finding:
    """It does."""
    return Finding(_line(check), Status.FAIL, _line(found), _line(remedy))


def _line(text: str) -> str:
    """Some of it is what others said."""
    return printable(text)[:_LINE]


class Subject(Struct, frozen=True):
    """The program that is looked at: as it would be started here and now."""

    program: Program
    settings: Any  # NodeSettings or SchedulerSettings
    folder: Path  # its data folder, which need not be there
    lan: "Lan"
    url: str = ""  # of a scheduler, as somebody said it
    now: Callable[[], float] = time.time

    @property
    def is_node(self) -> bool:
        """Whether it is a node, and no scheduler."""
        return self.program == "node"

    @property
    def memberships(self) -> Memberships | None:
        """Its pools; None where there are none, or where they cannot be read."""
        try:
            return Memberships(self.folder, self.folder / KEY) or None
        except (Invalid, OSError):
            return None

    @property
    def wants_pool(self) -> bool:
        """Whether it is, or is to be, of a pool whose members prove that they are."""
        if self.is_node:
            return bool(self.settings.join or self.memberships)
        return bool(pool_address(self.settings))

    @property
    def pool_address(self) -> str:
        """Where it serves members of the pool; empty: nowhere."""
        return pool_address(self.settings, member=self.is_node) if self.wants_pool else ""

    @property
    def host(self) -> str:
        """Where it is to be found by others."""
        return host_and_port(self.pool_address or self.settings.listen, "pool_listen")[0]


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """What a function answers that blocks. Who gives up waiting leaves it behind: unlike the
    event loop's own threads, this one does not keep the program from ending.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(settle: Callable[[Any], None], value: Any) -> None:
        if not answer.done():
            settle(value)

    def run() -> None:
        try:
            value = function(*arguments)
        except Exception as error:  # it is raised where somebody waits for it
            outcome: tuple[Any, Any] = (answer.set_exception, error)
        else:
            outcome = (answer.set_result, value)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, daemon=True).start()
    return await answer
