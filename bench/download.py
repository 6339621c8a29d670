"""`python -m bench.download URL`: the bytes of an answer, by a client that costs next to nothing: a
raw socket, read into one buffer. Prints seconds and bytes as JSON.
"""

import json
import socket
import sys
import time
from urllib.parse import urlsplit

_BUFFER = 1 << 20


def download(url: str) -> dict[str, float]:
    """From connecting to the last byte. Raises OSError where there are fewer than were promised."""
    parts = urlsplit(url)
    buffer = memoryview(bytearray(_BUFFER))
    began = time.perf_counter()
    with socket.create_connection((parts.hostname or "", parts.port or 80)) as connection:
        request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        expected, received = _head(connection)
        while received < expected and (count := connection.recv_into(buffer)):
            received += count
    if received != expected:
        raise OSError(f"{received} of {expected} bytes")
    return {"seconds": time.perf_counter() - began, "bytes": received}


def _head(connection: socket.socket) -> tuple[int, int]:
    """Bytes that the body has, and how many of them came with the head."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = connection.recv(16 << 10)
        if not data:
            raise OSError(f"no head: {head[:200]!r}")
        head += data
    lines, _, body = head.partition(b"\r\n\r\n")
    status, *fields = lines.decode("latin1").split("\r\n")
    if status.split()[1] != "200":
        raise OSError(status)
    headers = {name.lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)}
    return int(headers["content-length"]), len(body)


if __name__ == "__main__":
    print(json.dumps(download(sys.argv[1])))
