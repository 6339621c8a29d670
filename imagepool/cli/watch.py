"""Watching a build: its log on standard output, all else beside it; or events as JSON."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from imagepool.cli import words
from imagepool.cli.terminal import STYLES, Screen, note
from protocol.errors import NotFound, Unavailable
from protocol.model.build import Build, State

if TYPE_CHECKING:
    from imagepool import AsyncClient

_TICK = 1.0  # seconds after which the line that says what happens now is drawn anew


async def watch(pool: "AsyncClient", build_id: str) -> Build:
    """Print the log while the build runs; the build when it has stopped."""
    seen = _Seen()
    screen = Screen()
    ticking = asyncio.create_task(_tick(screen, seen))
    with going_on(build_id):
        try:
            await _show(pool, build_id, screen, seen)
        except (Unavailable, NotFound) as error:
            if seen.build is None or seen.build.state is not State.STOPPED:
                raise
            screen.say(f"the end of the log is missing: {error.detail}")
        finally:
            ticking.cancel()
            screen.close()
    assert seen.build is not None
    screen.say(words.ending(seen.build), **STYLES.get(words.status(seen.build), {}))
    return seen.build


class _Seen(Struct):
    """What was seen of a build so far."""

    build: Build | None = None
    attempt: int = 0  # whose log is shown
    waits: str = ""  # why it waits, as it was said last


async def _show(pool: "AsyncClient", build_id: str, screen: Screen, seen: _Seen) -> None:
    from imagepool.client import LogPiece

    async for event in pool.watch(build_id):
        if isinstance(event, LogPiece):
            if seen.attempt and event.attempt != seen.attempt:
                screen.say(f"attempt {event.attempt}: the log begins anew")
            seen.attempt = event.attempt
            screen.write(event.data)
            continue
        seen.build = event.build
        waits = event.build.reason if event.build.state is State.WAITING else ""
        if waits not in ("", seen.waits):
            seen.waits = waits
            screen.say(f"waiting: {waits}")


async def watch_as_json(pool: "AsyncClient", build_id: str) -> Build:
    """Print each event as a line of JSON; the build when it has stopped."""
    from imagepool.client import Changed
    from protocol.api.native.views import view

    latest: Build | None = None
    with going_on(build_id):
        async for event in pool.watch(build_id):
            if isinstance(event, Changed):
                latest = event.build
                print_json({"event": "build", "build": view(latest)})
            else:
                print_json(
                    {
                        "event": "log",
                        "attempt": event.attempt,
                        "offset": event.offset,
                        "text": event.data.decode("utf-8", "replace"),
                    }
                )
    assert latest is not None
    return latest


def print_json(value: Any) -> None:
    """A line of JSON, at once."""
    from protocol import wire

    click.echo(wire.encode(value))


@contextlib.contextmanager
def going_on(build_id: str) -> Iterator[None]:
    """Where Ctrl-C ends the watching, say that the build goes on."""
    try:
        yield
    except asyncio.CancelledError:
        note("")
        note(f"build {build_id} goes on")
        note(f"watch it again: imagepool log -f {build_id}")
        note(f"end it: imagepool cancel {build_id}")
        raise


async def _tick(screen: Screen, seen: _Seen) -> None:
    """Keep the line up to date that says what happens now."""
    began = time.monotonic()
    while True:
        if seen.build is not None and seen.build.state is not State.STOPPED:
            screen.now(f"[{words.age(time.monotonic() - began)}] {words.doing(seen.build)}")
        await asyncio.sleep(_TICK)
