"""Fetching what is given by URL: the text of a command, or a file that a build needs. http and
https only, bounded in size and time, from where the operator allows it.

Each redirect is judged as the URL was, and gets no more than the URL got: nothing that is secret.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from protocol.errors import PoolError
from protocol.model.networks import Reach
from protocol.model.urls import WebUrl, follow
from protocol.remote.guard import Guard

_REDIRECTS = 5
_MOVED = (301, 302, 303, 307, 308)
_PLAIN = {"Accept-Encoding": "identity"}  # the bytes themselves, of which there is a digest
_PIECE = 1 << 20
_PROGRESS = 5.0  # seconds between lines that say how far it is


class FetchFailed(Exception):
    """It could not be had; the message says why, for the build's log."""


async def fetch(url: str, *, allowed: Reach, limit: int, seconds: float) -> bytes:
    """The bytes at a URL, `limit` at most. Raises FetchFailed."""
    async with _answered(url, allowed, seconds) as response:
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            _check_size(url, len(body), limit)
        return bytes(body)


async def fetch_file(
    url: str,
    target: Path,
    *,
    allowed: Reach,
    limit: int,
    seconds: float,
    sha256: str | None,
    say: Callable[[str], None],
) -> None:
    """Write the bytes at a URL to a file, `limit` at most; with `sha256` they must have that.
    `say` is given lines that tell how far it is. Raises FetchFailed, OSError.
    """
    shown, digest, size = _shown(url), hashlib.sha256(), 0
    say(f"fetching {shown}")
    told = time.monotonic()
    # Not unbuffered: that writes short on a full disk, and says nothing.
    with await asyncio.to_thread(target.open, "wb") as file:

        def keep(piece: bytes) -> None:
            file.write(piece)
            digest.update(piece)

        known = sha256 is not None  # however it came, it is what was wanted
        async with _answered(url, allowed, seconds, plain=known) as response:
            _check_size(url, response.content_length or 0, limit)
            async for piece in response.content.iter_chunked(_PIECE):
                size += len(piece)
                _check_size(url, size, limit)
                await asyncio.to_thread(keep, piece)
                if time.monotonic() - told >= _PROGRESS:
                    told = time.monotonic()
                    say(_progress(shown, size, response.content_length))
    if sha256 is not None and digest.hexdigest() != sha256:
        raise FetchFailed(f"{shown} has the SHA-256 {digest.hexdigest()}, not {sha256}")
    say(f"fetched {size} bytes")


@asynccontextmanager
async def _answered(
    url: str, allowed: Reach, seconds: float, *, plain: bool = False
) -> AsyncIterator[aiohttp.ClientResponse]:
    """An answer of 200; what goes wrong, also while its body is read, is FetchFailed. `plain`:
    redirects may lead from https to http.
    """
    guard = Guard(allowed)
    try:
        place = guard.check(url, "url")
        async with (
            guard,
            aiohttp.ClientSession(
                connector=guard.connector(), cookie_jar=aiohttp.DummyCookieJar()
            ) as session,
            await _arrived(session, guard, place, seconds, plain) as response,
        ):
            if response.status != 200:
                raise FetchFailed(f"{_shown(url)} answered {response.status}")
            yield response
    except TimeoutError as error:
        raise FetchFailed(f"{_shown(url)} did not come within {seconds:g} s") from error
    except (aiohttp.ClientError, ValueError, PoolError) as error:
        raise FetchFailed(f"{_shown(url)} could not be fetched: {error}") from error


async def _arrived(
    session: aiohttp.ClientSession, guard: Guard, place: WebUrl, seconds: float, plain: bool
) -> aiohttp.ClientResponse:
    """The first answer that is no redirect; all of them together take so many seconds at most."""
    until = time.monotonic() + seconds
    for _ in range(_REDIRECTS + 1):
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        response = await session.get(
            place.text,
            allow_redirects=False,
            headers=_PLAIN,
            timeout=aiohttp.ClientTimeout(total=left),
        )
        if response.status not in _MOVED:
            return response
        response.close()
        to = follow(place, response.headers.get("Location", ""), plain=plain)
        place = guard.check(to.text, "Location")
    raise FetchFailed(f"{place.origin} is where more than {_REDIRECTS} redirects led")


def _check_size(url: str, size: int, limit: int) -> None:
    if size > limit:
        raise FetchFailed(f"{_shown(url)} has more than {limit} bytes")


def _progress(shown: str, size: int, whole: int | None) -> str:
    return f"fetching {shown}: {size >> 20} MiB" + (f" of {whole >> 20}" if whole else "")


def _shown(url: str) -> str:
    """The URL without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
