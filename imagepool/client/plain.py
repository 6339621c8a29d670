"""`Client`: the same as `AsyncClient`, for programs without an event loop.

Nothing is written twice: each method is one of AsyncClient's, run on an event loop in a thread of
the client's own. `plain` and `plain_iterator` keep the signatures, for people and for mypy.
"""

import asyncio
import functools
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

from imagepool.client.asynchronous import AsyncClient

P = ParamSpec("P")
R = TypeVar("R")

_END: Any = object()


def plain(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate["Client", P], R]:
    """The method, waiting for the answer."""

    @functools.wraps(method)
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._run(method(self._client(), *args, **kwargs))

    return call


def plain_iterator(
    method: Callable[Concatenate[AsyncClient, P], AsyncGenerator[R, None]],
) -> Callable[Concatenate["Client", P], Iterator[R]]:
    """The method, as an iterator that waits for each."""

    @functools.wraps(method)
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        return self._each(method(self._client(), *args, **kwargs))

    return call


class Client:
    """A pool, or a node, at a URL; without one at $IMAGEPOOL_URL, else where mDNS finds a
    scheduler. A context manager; may be used from several threads.

    `owner`: whose builds these are. `persistence`: the seconds for which what may be repeated is
    repeated while nobody answers; an address where no pool ever answered, and that refuses the
    connection or answers as no pool does, is not waited for. `token`: what proves who asks, else
    $IMAGEPOOL_TOKEN, else the file ~/.config/imagepool/token; it is sent to a URL that was given,
    never to what mDNS finds. Raises Invalid where the URL is none.
    """

    def __init__(
        self, url: str = "", *, owner: str = "", persistence: float = 30.0, token: str = ""
    ) -> None:
        self._inner = AsyncClient(url, owner=owner, persistence=persistence, token=token)
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(
            target=self._loop.run_forever, name="imagepool-client", daemon=True
        )
        thread.start()
        self._end = weakref.finalize(self, _end, self._inner, self._loop, thread)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where the pool is; empty as long as it was not looked for."""
        return self._inner.url

    def close(self) -> None:
        """Close the connections and end the thread; may be called twice."""
        self._end()

    submit = plain(AsyncClient.submit)
    preview = plain(AsyncClient.preview)
    get = plain(AsyncClient.get)
    wait = plain(AsyncClient.wait)
    watch = plain_iterator(AsyncClient.watch)
    log = plain_iterator(AsyncClient.log)
    lines = plain_iterator(AsyncClient.lines)
    artifact = plain(AsyncClient.artifact)
    artifacts = plain(AsyncClient.artifacts)
    download = plain(AsyncClient.download)
    read = plain_iterator(AsyncClient.read)
    page = plain(AsyncClient.page)
    builds = plain_iterator(AsyncClient.builds)
    explain = plain(AsyncClient.explain)
    cancel = plain(AsyncClient.cancel)
    retry = plain(AsyncClient.retry)
    pin = plain(AsyncClient.pin)
    unpin = plain(AsyncClient.unpin)
    delete = plain(AsyncClient.delete)
    upload = plain(AsyncClient.upload)
    status = plain(AsyncClient.status)
    nodes = plain(AsyncClient.nodes)
    node = plain(AsyncClient.node)
    cordon = plain(AsyncClient.cordon)
    drain = plain(AsyncClient.drain)
    uncordon = plain(AsyncClient.uncordon)
    invitation = plain(AsyncClient.invitation)
    admit = plain(AsyncClient.admit)
    revoke = plain(AsyncClient.revoke)
    authority = plain(AsyncClient.authority)
    whoami = plain(AsyncClient.whoami)
    tokens = plain(AsyncClient.tokens)
    make_token = plain(AsyncClient.make_token)
    revoke_token = plain(AsyncClient.revoke_token)
    users = plain(AsyncClient.users)
    put_user = plain(AsyncClient.put_user)
    remove_user = plain(AsyncClient.remove_user)
    audit = plain(AsyncClient.audit)

    def _client(self) -> AsyncClient:
        if not self._end.alive:
            raise RuntimeError("this client is closed")
        return self._inner

    def _run(self, work: Coroutine[Any, Any, R]) -> R:
        """What the coroutine answers; it is cancelled where waiting for it is interrupted."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _each(self, source: AsyncGenerator[R, None]) -> Iterator[R]:
        try:
            while (value := self._run(_next(source))) is not _END:
                yield value
        finally:
            if self._end.alive:
                self._run(source.aclose())


async def _next(source: AsyncGenerator[R, None]) -> R:
    return await anext(source, _END)


def _end(client: AsyncClient, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """The end of a client's thread, also where nobody closed it."""
    asyncio.run_coroutine_threadsafe(_closed(client), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def _closed(client: AsyncClient) -> None:
    """Cut short what still runs, and close the connections."""
    running = asyncio.all_tasks() - {asyncio.current_task()}
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await client.close()
    await asyncio.get_running_loop().shutdown_asyncgens()
    await asyncio.get_running_loop().shutdown_default_executor()
