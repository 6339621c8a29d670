"""mDNS on loopback, with real sockets: programs find each other, and hear goodbyes."""

import asyncio

import pytest

from protocol.program import mdns
from protocol.program.beacon import Beacon
from protocol.program.mdns import Mdns
from protocol.program.settings import ProgramSettings

pytestmark = pytest.mark.gen_test(timeout=20)


def a_beacon(identity: str) -> Beacon:
    """A program on this machine."""
    return Beacon(identity * 16, "boot", "test", "node", 8090, ("127.0.0.1",), name="n")


async def test_a_program_is_found_and_its_goodbye_heard() -> None:
    """Whether it was there before the browser or came later."""
    heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    early, late, browser = (Mdns(ProgramSettings(), "127.0.0.1") for _ in range(3))
    ours = {"ea" * 16, "1a" * 16}

    def note(kind: str, identity: str) -> None:
        if identity in ours:
            heard.put_nowait((kind, identity))

    try:
        await early.advertise(a_beacon("ea"))
        browser.browse(lambda b: note("found", b.id), lambda identity: note("gone", identity))
        assert await heard.get() == ("found", "ea" * 16)
        await late.advertise(a_beacon("1a"))
        assert await heard.get() == ("found", "1a" * 16)
    finally:
        await early.close()
        assert await heard.get() == ("gone", "ea" * 16)
        await late.close()
        await browser.close()


async def test_more_programs_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the one that was found first it is not known any more who it was."""
    monkeypatch.setattr(mdns, "_MOST", 1)
    heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    first, second, browser = (Mdns(ProgramSettings(), "127.0.0.1") for _ in range(3))
    names = {"1b" * 16: "first", "2b" * 16: "second"}

    def note(kind: str, identity: str) -> None:
        if identity in names:
            heard.put_nowait((kind, names[identity]))

    try:
        browser.browse(lambda b: note("found", b.id), lambda identity: note("gone", identity))
        await first.advertise(a_beacon("1b"))
        assert await heard.get() == ("found", "first")
        await second.advertise(a_beacon("2b"))
        assert await heard.get() == ("found", "second")
    finally:
        await first.close()
        await second.close()
        assert await heard.get() == ("gone", "second")
        await browser.close()
