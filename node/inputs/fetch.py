"""Fetching what is given by URL: the text of a command, or a file that a build needs. http and
https only, bounded in size and time.
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
from protocol.model.checks import check_url

_REDIRECTS = 5
_PLAIN = {"Accept-Encoding": "identity"}  # the bytes themselves, of which there is a digest
_PIECE = 1 << 20
_PROGRESS = 5.0  # seconds between lines that say how far it is


class FetchFailed(Exception):
    """It could not be had; the message says why, for the build's log."""


async def fetch(url: str, *, limit: int, seconds: float) -> bytes:
    """The bytes at a URL, `limit` at most. Raises FetchFailed."""
    async with _answered(url, seconds) as response:
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            _check_size(url, len(body), limit)
        return bytes(body)


async def fetch_file(
    url: str,
    target: Path,
    *,
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

        async with _answered(url, seconds) as response:
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
async def _answered(url: str, seconds: float) -> AsyncIterator[aiohttp.ClientResponse]:
    """An answer of 200; what goes wrong, also while its body is read, is FetchFailed."""
    timeout = aiohttp.ClientTimeout(total=seconds)
    try:
        check_url(url, "url")
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(url, max_redirects=_REDIRECTS, headers=_PLAIN) as response,
        ):
            if response.status != 200:
                raise FetchFailed(f"{_shown(url)} answered {response.status}")
            yield response
    except TimeoutError as error:
        raise FetchFailed(f"{_shown(url)} did not come within {seconds:g} s") from error
    except (aiohttp.ClientError, ValueError, PoolError) as error:
        raise FetchFailed(f"{_shown(url)} could not be fetched: {error}") from error


def _check_size(url: str, size: int, limit: int) -> None:
    if size > limit:
        raise FetchFailed(f"{_shown(url)} has more than {limit} bytes")


def _progress(shown: str, size: int, whole: int | None) -> str:
    return f"fetching {shown}: {size >> 20} MiB" + (f" of {whole >> 20}" if whole else "")


def _shown(url: str) -> str:
    """The URL without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
