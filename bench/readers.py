"""Who reads logs in `bench/logs.py`, and what usually serves them; each a process of its own.

`python -m bench.readers drain URL COUNT SIZE`: so many connections that read an answer and drop it,
at next to no cost; each must have so many bytes, and an end.
`python -m bench.readers engine CONTAINER COUNT SIZE`: so many threads that read a container's
output by the docker SDK, as programs do that follow a build on an engine. Prints the seconds of
processor time that it took.
`python -m bench.readers lines FILE`: a server of server-sent events, one for each line of the file,
as such servers are written. Prints its port.
"""

import asyncio
import selectors
import socket
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

_BUFFER = 1 << 20


def drain(url: str, count: int, size: int) -> None:
    """Read all answers to their ends. Raises OSError where one is not whole."""
    parts = urlsplit(url)
    request = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    buffer = memoryview(bytearray(_BUFFER))
    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            connection = socket.create_connection((parts.hostname or "", parts.port or 80))
            connection.sendall(request.encode())
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ, [0])
        while selector.get_map():
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                if received := key.fileobj.recv_into(buffer):
                    key.data[0] += received
                    continue
                selector.unregister(key.fileobj)
                key.fileobj.close()
                if key.data[0] < size:
                    raise OSError(f"{key.data[0]} of {size} bytes")


def engine(container: str, count: int, size: int) -> None:
    """Read a container's output."""
    import docker

    received: list[int] = []

    def read() -> None:
        client = docker.APIClient(version="auto")
        received.append(sum(map(len, client.logs(container, stream=True, follow=False))))
        client.close()

    used = time.process_time()
    threads = [threading.Thread(target=read) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if received != [size] * count:
        raise OSError(f"{received[:3]} bytes, not {size}")
    print(time.process_time() - used)


async def serve_lines(file: Path) -> None:
    """Serve until the process is ended."""
    from tornado import httpserver, netutil, web

    class Lines(web.RequestHandler):
        async def get(self) -> None:
            self.set_header("Content-Type", "text/event-stream")
            with file.open(encoding="utf-8") as lines:
                for line in lines:
                    self.write(f"data: {line}\n")
                    await self.flush()

    (listening,) = netutil.bind_sockets(0, "127.0.0.1")
    httpserver.HTTPServer(web.Application([("/", Lines)])).add_socket(listening)
    print(listening.getsockname()[1], flush=True)
    await asyncio.Event().wait()


def main(kind: str, place: str, *numbers: str) -> None:
    """See the module."""
    if kind == "lines":
        asyncio.run(serve_lines(Path(place)))
    else:
        {"drain": drain, "engine": engine}[kind](place, *map(int, numbers))


if __name__ == "__main__":
    main(*sys.argv[1:])
