"""nginx as a proxy in front of a node: its own configuration, folder and port, and no service."""

import asyncio
import contextlib
import shutil
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from bench.processes import Running

_BUFFERS = " proxy_buffers 8 512k; proxy_busy_buffers_size 1m;"  # it insists on more than one
PROXIES = {
    "nginx proxy": ("default", ""),
    "nginx proxy, buffering off": ("off", "proxy_buffering off;"),
    "nginx proxy, off, 512k buffer": (
        "large",
        "proxy_buffering off; proxy_buffer_size 512k;" + _BUFFERS,
    ),
}
"""Name -> prefix of its paths, what is set beyond nginx's defaults."""
_START = 10.0  # seconds that it may take to serve
_CONFIG = """
daemon off; master_process off; worker_processes 1;
pid {folder}/nginx.pid; error_log {folder}/nginx-errors.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    server {{
        listen 127.0.0.1:{port};
        {locations}
    }}
}}
"""


@contextlib.asynccontextmanager
async def nginx(folder: Path, url: str) -> AsyncIterator[Running]:
    """nginx while the context lasts: one process that serves every proxy."""
    port = _free_port()
    home = folder / "nginx"
    home.mkdir()
    config = home / "nginx.conf"
    locations = "\n".join(
        f"location /{prefix}/ {{ proxy_pass http://{urlsplit(url).netloc}/; {more} }}"
        for prefix, more in PROXIES.values()
    )
    config.write_text(_CONFIG.format(folder=home, port=port, locations=locations))
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    process = await asyncio.create_subprocess_exec(
        binary, "-p", str(home), "-e", str(home / "nginx-errors.log"), "-c", str(config)
    )
    try:
        await serving(port)
        yield Running(f"http://127.0.0.1:{port}", process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def serving(port: int) -> None:
    """Return when something accepts connections there. Raises OSError where nothing does."""
    deadline = time.monotonic() + _START
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
