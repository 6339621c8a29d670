"""Ways to keep a server busy or full, each for as long as it is let; all on loopback.

`python -m tests.trust.floods NAME PORT` floods until it is told to end: a process of its own, so
that whoever measures meanwhile is not flooded too. It says `begun` when it has.
"""

import asyncio
import contextlib
import resource
import signal
import sys
from collections.abc import Awaitable, Callable

Attack = Callable[[int], Awaitable[None]]
"""Attacks the program at this port of loopback until it is cancelled."""

_POST = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\n"


def room(files: int) -> None:
    """Let this process have so many open files. Raises ValueError where it may not."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, hard), hard))
    if hard < files:
        raise ValueError(f"needs {files} open files, and may have {hard}")


async def _each(count: int, visit: Callable[[], Awaitable[None]]) -> None:
    """So many visitors at the same time, each coming again when it was sent away."""

    async def again() -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await visit()
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(again())


def _saying(first: bytes, *rest: bytes, visitors: int, pause: float = 0.0) -> Attack:
    """Visitors that say something, then the rest over and over with a pause between, until the
    connection ends; where there is no rest, they wait for an answer.
    """

    async def attack(port: int) -> None:
        async def visit() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(first)
                await writer.drain()
                while rest and not reader.at_eof():
                    for piece in rest:
                        writer.write(piece)
                        await writer.drain()
                        await asyncio.sleep(pause)
                await reader.read(1)
            finally:
                writer.transport.abort()

        await _each(visitors, visit)

    return attack


def idle(count: int) -> Attack:
    """So many connections that say nothing."""

    async def attack(port: int) -> None:
        opened = []
        try:
            for _ in range(count):
                with contextlib.suppress(OSError):
                    opened.append(await asyncio.open_connection("127.0.0.1", port))
            print(f"opened {len(opened)}", flush=True)
            await asyncio.Event().wait()
        finally:
            for _, writer in opened:
                writer.transport.abort()

    return attack


def _posting(path: bytes, kind: bytes, body: bytes, visitors: int) -> Attack:
    head = _POST % (path, kind) + b"Content-Length: %d\r\n\r\n" % len(body)
    return _saying(head + body, visitors=visitors)


_GET = b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\n"
_CHUNKED = _POST % (b"/create", b"application/json") + b"Transfer-Encoding: chunked\r\n\r\n"
_BUILDS, _JSON, _MSGPACK = b"/api/v1/builds", b"application/json", b"application/msgpack"
_WIDE = 4 << 20  # lists in one

ATTACKS: dict[str, Attack] = {
    "headers, a byte at a time": _saying(_GET + b"X: ", b"x", visitors=500, pause=0.2),
    "headers without end": _saying(_GET, b"X: " + b"x" * 8000 + b"\r\n", visitors=20),
    "many headers": _saying(_GET + b"a:\r\n" * 7000 + b"\r\n", visitors=10),
    "many cookies": _saying(_GET + b"Cookie: " + b"a=b; " * 6000 + b"\r\n\r\n", visitors=10),
    "many cookie headers": _saying(_GET + b"Cookie: a=b\r\n" * 2200 + b"\r\n", visitors=10),
    "URLs of 1 MB": _saying(
        b"GET /status?" + b"x" * (1 << 20) + b" HTTP/1.1\r\nHost: x\r\n\r\n", visitors=10
    ),
    "chunks without end": _saying(_CHUNKED, b"10000\r\n" + bytes(1 << 16) + b"\r\n", visitors=5),
    "small chunks without end": _saying(_CHUNKED, b"1\r\nx\r\n" * 5000, visitors=5),
    "deep JSON": _posting(_BUILDS, _JSON, b"[" * (4 << 20), visitors=2),
    "wide JSON": _posting(_BUILDS, _JSON, b"[" + b"[]," * _WIDE + b"[]]", visitors=1),
    "deep msgpack": _posting(_BUILDS, _MSGPACK, b"\x91" * (4 << 20), visitors=2),
    "wide msgpack": _posting(
        _BUILDS, _MSGPACK, b"\xdd" + _WIDE.to_bytes(4) + b"\x90" * _WIDE, visitors=1
    ),
    "many connections": idle(5000),
}


async def main(name: str, port: int) -> None:
    """Flood until SIGTERM; a number is a count of idle connections."""
    room(11_000)
    attack = idle(int(name)) if name.isdigit() else ATTACKS[name]
    attacking = asyncio.ensure_future(attack(port))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, attacking.cancel)
    print("begun", flush=True)
    await asyncio.wait({attacking})
    if not attacking.cancelled():
        attacking.result()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
