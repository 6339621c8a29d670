"""Fetching the text of a command that is given by URL: http and https only, bounded in size and
time.
"""

import aiohttp

from protocol.checks import check_url
from protocol.errors import PoolError

_REDIRECTS = 5


class FetchFailed(Exception):
    """The text could not be had; the message says why, for the build's log."""


async def fetch(url: str, *, limit: int, seconds: float) -> bytes:
    """The bytes at a URL, `limit` at most. Raises FetchFailed."""
    timeout = aiohttp.ClientTimeout(total=seconds)
    try:
        check_url(url, "url")
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(url, max_redirects=_REDIRECTS) as response,
        ):
            if response.status != 200:
                raise FetchFailed(f"{url} answered {response.status}")
            return await _body(response, url, limit)
    except TimeoutError as error:
        raise FetchFailed(f"{url} did not answer within {seconds:g} s") from error
    except (aiohttp.ClientError, OSError, ValueError, PoolError) as error:
        raise FetchFailed(f"{url} could not be fetched: {error}") from error


async def _body(response: aiohttp.ClientResponse, url: str, limit: int) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > limit:
            raise FetchFailed(f"{url} has more than {limit} bytes")
    return bytes(body)
